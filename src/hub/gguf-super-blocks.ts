/** ggml's blocks of 256 elements with a scale of scales (K-quants), and Q5_0, restored to 32 bits as ggml-quants.c does; every product is rounded. */
import { halfValue } from "./float16.js";

const SUPER = 256;

const half = (bytes: Uint8Array, at: number): number => halfValue(bytes[at]! | (bytes[at + 1]! << 8));

/** A half scale, 4 bytes of fifth bits, 16 bytes whose low nibbles are elements 0 to 15: scale · (q - 16). */
export function restoreQ5(bytes: Uint8Array, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let at = 0, to = 0; to < count; at += 22, to += 32) {
    const d = half(bytes, at);
    const high = bytes[at + 2]! | (bytes[at + 3]! << 8) | (bytes[at + 4]! << 16) | (bytes[at + 5]! << 24);
    for (let i = 0; i < 16; i++) {
      const byte = bytes[at + 6 + i]!;
      out[to + i] = d * (((byte & 15) | (((high >>> i) & 1) << 4)) - 16);
      out[to + i + 16] = d * (((byte >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16);
    }
  }
  return out;
}

/** The scale (even) and minimum (odd) of each of the eight parts of a block, 6 bits each in 12 bytes. */
export function unpackScales(bytes: Uint8Array, at: number, into: Uint8Array): void {
  for (let i = 0; i < 4; i++) {
    const [a, b, c] = [bytes[at + i]!, bytes[at + 4 + i]!, bytes[at + 8 + i]!];
    into[2 * i] = a & 63;
    into[2 * i + 1] = b & 63;
    into[2 * i + 8] = (c & 15) | ((a >> 6) << 4);
    into[2 * i + 9] = (c >> 4) | ((b >> 6) << 4);
  }
}

/**
 * Scale and minimum of the scales, the packed scales, for Q5_K 32 bytes with one bit for each part, then nibbles, two parts in 32 bytes:
 * scale · q - minimum.
 */
function restorePairs(bytes: Uint8Array, count: number, fifth: boolean): Float32Array {
  const out = new Float32Array(count);
  const scales = new Uint8Array(16);
  const { fround } = Math;
  for (let at = 0, to = 0; to < count; at += fifth ? 176 : 144, to += SUPER) {
    const d = half(bytes, at);
    const least = half(bytes, at + 2);
    unpackScales(bytes, at + 4, scales);
    for (let part = 0; part < 8; part++) {
      const by = fround(d * scales[2 * part]!);
      const less = fround(least * scales[2 * part + 1]!);
      const codes = at + (fifth ? 48 : 16) + (part >> 1) * 32;
      for (let i = 0; i < 32; i++) {
        const byte = bytes[codes + i]!;
        const low = part & 1 ? byte >> 4 : byte & 15;
        const q = fifth ? low | (((bytes[at + 16 + i]! >> part) & 1) << 4) : low;
        out[to + part * 32 + i] = fround(by * q) - less;
      }
    }
  }
  return out;
}

/** Blocks of 144 bytes. */
export const restoreQ4K = (bytes: Uint8Array, count: number): Float32Array => restorePairs(bytes, count, false);
/** Blocks of 176 bytes. */
export const restoreQ5K = (bytes: Uint8Array, count: number): Float32Array => restorePairs(bytes, count, true);

/** Low nibbles (128 bytes), the two upper bits (64 bytes), 16 signed scales, their half scale: scale · (q - 32). */
export function restoreQ6K(bytes: Uint8Array, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let at = 0, to = 0; to < count; at += 210) {
    const d = half(bytes, at + 208);
    for (let group = 0; group < 8; group++) {
      const low = at + (group >> 2) * 64 + (group & 1) * 32;
      const high = at + 128 + (group >> 2) * 32;
      const [shift, upper] = [group & 2 ? 4 : 0, 2 * (group & 3)];
      for (let i = 0; i < 32; i++, to++) {
        const scale = Math.fround(d * ((bytes[at + 192 + group * 2 + (i >> 4)]! << 24) >> 24));
        out[to] = scale * ((((bytes[low + i]! >> shift) & 15) | (((bytes[high + i]! >> upper) & 3) << 4)) - 32);
      }
    }
  }
  return out;
}
