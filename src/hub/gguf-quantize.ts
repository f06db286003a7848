/** Numbers packed into the blocks of GGUF files; Q8_0, Q4_0 and Q5_0 have the bytes of the gguf package's `quantize`. */
import { float32ToBfloat16, float32ToFloat16, narrowHalf } from "./float16.js";
import { quantizeQ4K, quantizeQ5K, quantizeQ6K } from "./gguf-quantize-k.js";

const BLOCK = 32;
const { fround } = Math;

/** Packs whole blocks of finite numbers. */
type Pack = (values: Float32Array) => Uint8Array;

const PACK: Readonly<Record<string, Pack>> = {
  F32: (values) => bytesOf(values),
  F16: (values) => bytesOf(float32ToFloat16(values)),
  BF16: (values) => bytesOf(float32ToBfloat16(values)),
  Q8_0: quantizeQ8,
  Q4_0: quantizeQ4,
  Q5_0: quantizeQ5,
  Q4_K: quantizeQ4K,
  Q5_K: quantizeQ5K,
  Q6_K: quantizeQ6K,
};

/** Elements that a block holds, of the types that can be written. */
export const WRITTEN_BLOCKS: Readonly<Record<string, number>> = {
  F32: 1,
  F16: 1,
  BF16: 1,
  Q8_0: BLOCK,
  Q4_0: BLOCK,
  Q5_0: BLOCK,
  Q4_K: 256,
  Q5_K: 256,
  Q6_K: 256,
};

/** The bytes of numbers in one of the types of {@link WRITTEN_BLOCKS}. @param values finite, whole blocks of them */
export function packBlocks(dtype: string, values: Float32Array): Uint8Array {
  return PACK[dtype]!(values);
}

function bytesOf(array: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Writes a half and gives its reciprocal scale in 32 bits, 0 for 0. */
function writeScale(out: Uint8Array, at: number, scale: number): number {
  const bits = narrowHalf(scale);
  out[at] = bits & 255;
  out[at + 1] = bits >> 8;
  return scale === 0 ? 0 : fround(1 / scale);
}

// The largest magnitude becomes 127; halves are rounded away from zero.
function quantizeQ8(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / BLOCK) * 34);
  for (let from = 0, at = 0; from < values.length; from += BLOCK, at += 34) {
    let most = 0;
    for (let i = from; i < from + BLOCK; i++) most = Math.max(most, Math.abs(values[i]!));
    const inverse = writeScale(out, at, fround(most / 127));
    for (let i = 0; i < BLOCK; i++) {
      const scaled = fround(values[from + i]! * inverse);
      const size = Math.abs(scaled);
      const whole = Math.floor(size);
      const code = whole + (size - whole >= 0.5 ? 1 : 0);
      out[at + 2 + i] = scaled < 0 ? -code : code;
    }
  }
  return out;
}

/** Codes of a block from 0 to 2·middle - 1 and the scale: the element of largest magnitude gets the code 0, whatever its sign. */
function codesOf(values: Float32Array, from: number, middle: number, codes: Uint8Array): number {
  let largest = values[from]!;
  for (let i = from + 1; i < from + BLOCK; i++) {
    if (Math.abs(values[i]!) > Math.abs(largest)) largest = values[i]!;
  }
  const scale = fround(largest / -middle);
  const inverse = scale === 0 ? 0 : fround(1 / scale);
  for (let i = 0; i < BLOCK; i++) {
    const code = Math.trunc(fround(fround(values[from + i]! * inverse) + (middle + 0.5)));
    codes[i] = Math.min(code, 2 * middle - 1);
  }
  return scale;
}

function quantizeQ4(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / BLOCK) * 18);
  const codes = new Uint8Array(BLOCK);
  for (let from = 0, at = 0; from < values.length; from += BLOCK, at += 18) {
    writeScale(out, at, codesOf(values, from, 8, codes));
    for (let i = 0; i < 16; i++) out[at + 2 + i] = codes[i]! | (codes[i + 16]! << 4);
  }
  return out;
}

function quantizeQ5(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / BLOCK) * 22);
  const codes = new Uint8Array(BLOCK);
  for (let from = 0, at = 0; from < values.length; from += BLOCK, at += 22) {
    writeScale(out, at, codesOf(values, from, 16, codes));
    for (let i = 0; i < BLOCK; i++) out[at + 2 + (i >> 3)]! |= (codes[i]! >> 4) << (i & 7);
    for (let i = 0; i < 16; i++) out[at + 6 + i] = (codes[i]! & 15) | ((codes[i + 16]! & 15) << 4);
  }
  return out;
}
