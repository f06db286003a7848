/** Tensors of GGUF files restored to 32 bits: whole floats, and ggml's blocks of 32 elements that share a scale (ggml-quants.c). */
import { bfloat16ToFloat32, float16ToFloat32 } from "./float16.js";
import { restoreQ4K, restoreQ5, restoreQ5K, restoreQ6K } from "./gguf-super-blocks.js";

const BLOCK = 32;

/** Restores packed bytes, `count` elements. */
type Restore = (bytes: Uint8Array, count: number) => Float32Array;

const RESTORE: Readonly<Record<string, Restore>> = {
  F32: (bytes, count) => new Float32Array(aligned(bytes), 0, count),
  F16: (bytes, count) => float16ToFloat32(new Uint16Array(aligned(bytes), 0, count)),
  BF16: (bytes, count) => bfloat16ToFloat32(new Uint16Array(aligned(bytes), 0, count)),
  Q8_0: restoreQ8,
  Q4_0: restoreQ4,
  Q4_1: restoreQ4WithMinimum,
  Q5_0: restoreQ5,
  Q4_K: restoreQ4K,
  Q5_K: restoreQ5K,
  Q6_K: restoreQ6K,
};

/** The types that {@link restoreBlocks} knows. */
export const RESTORED_DTYPES: readonly string[] = Object.keys(RESTORE);

/** The 32-bit numbers of a tensor's bytes, or undefined for a type that is not restored. */
export function restoreBlocks(dtype: string, bytes: Uint8Array, count: number): Float32Array | undefined {
  return Object.hasOwn(RESTORE, dtype) ? RESTORE[dtype]!(bytes, count) : undefined;
}

// Typed arrays of larger elements need an aligned start.
function aligned(bytes: Uint8Array): ArrayBuffer {
  return (bytes.byteOffset === 0 ? bytes : Uint8Array.from(bytes)).buffer as ArrayBuffer;
}

/** Every half that begins a block, `per` of them a block of `blockBytes`. */
function scales(bytes: Uint8Array, blocks: number, blockBytes: number, per: number): Float32Array {
  const halves = new Uint16Array(blocks * per);
  for (let i = 0, at = 0; i < blocks; i++, at += blockBytes) {
    for (let j = 0; j < per; j++) halves[i * per + j] = bytes[at + 2 * j]! | (bytes[at + 2 * j + 1]! << 8);
  }
  return float16ToFloat32(halves);
}

// A half scale, then 32 signed bytes: scale · q.
function restoreQ8(bytes: Uint8Array, count: number): Float32Array {
  const blocks = count / BLOCK;
  const d = scales(bytes, blocks, 34, 1);
  const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(count);
  for (let b = 0, to = 0; b < blocks; b++) {
    const scale = d[b]!;
    for (let i = 0, at = b * 34 + 2; i < BLOCK; i++) out[to++] = scale * signed[at++]!;
  }
  return out;
}

// A half scale, then 16 bytes: the low nibbles are elements 0 to 15, the high ones 16 to 31: scale · (q - 8).
function restoreQ4(bytes: Uint8Array, count: number): Float32Array {
  const blocks = count / BLOCK;
  const d = scales(bytes, blocks, 18, 1);
  const out = new Float32Array(count);
  for (let b = 0; b < blocks; b++) {
    const scale = d[b]!;
    for (let i = 0, at = b * 18 + 2, to = b * BLOCK; i < BLOCK / 2; i++, at++, to++) {
      const byte = bytes[at]!;
      out[to] = scale * ((byte & 15) - 8);
      out[to + BLOCK / 2] = scale * ((byte >> 4) - 8);
    }
  }
  return out;
}

// A half scale and a half minimum, then 16 bytes as above: scale · q + minimum.
function restoreQ4WithMinimum(bytes: Uint8Array, count: number): Float32Array {
  const blocks = count / BLOCK;
  const d = scales(bytes, blocks, 20, 2);
  const out = new Float32Array(count);
  for (let b = 0; b < blocks; b++) {
    const scale = d[2 * b]!;
    const minimum = d[2 * b + 1]!;
    for (let i = 0, at = b * 20 + 4, to = b * BLOCK; i < BLOCK / 2; i++, at++, to++) {
      const byte = bytes[at]!;
      out[to] = scale * (byte & 15) + minimum;
      out[to + BLOCK / 2] = scale * (byte >> 4) + minimum;
    }
  }
  return out;
}
