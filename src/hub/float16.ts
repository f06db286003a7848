/** 16-bit floats as files hold them, to and from 32 bits. Conversion to 32 bits is exact; the other way rounds to nearest, ties to even. */

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** bfloat16 is the upper half of a 32-bit float. */
export function bfloat16ToFloat32(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = halves[i]! << 16;
  return new Float32Array(words.buffer);
}

/** IEEE half: 1 sign, 5 exponent (bias 15), 10 mantissa bits. */
export function float16ToFloat32(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < halves.length; i++) words[i] = widenHalf(halves[i]!);
  return new Float32Array(words.buffer);
}

/** The number of a half's bits. */
export function halfValue(half: number): number {
  bits[0] = widenHalf(half);
  return float[0]!;
}

function widenHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
  if (exponent !== 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
  // A subnormal half is a normal float: mantissa * 2^-24.
  float[0] = mantissa * 2 ** -24;
  return (sign | bits[0]!) >>> 0;
}

/** Rounds to bfloat16, ties to even; a NaN stays one. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const nan = (word & 0x7fffffff) > 0x7f800000;
    halves[i] = nan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** Rounds to IEEE half, ties to even; beyond its range it becomes infinite. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) halves[i] = narrowHalf(values[i]!);
  return halves;
}

/** The bits of the nearest half. */
export function narrowHalf(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 is halfway between the largest half and the next power of two.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal halves are multiples of 2^-24: adding 0.5 leaves that many bits, rounded by the addition itself.
    float[0] = Math.abs(value) + 0.5;
    return sign | (bits[0]! - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}
