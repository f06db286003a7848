/**
 * Numbers packed into K-quants: 256 elements whose parts have scales that are quantised themselves. A part's scale is searched around the one that
 * its extremes give; for the codes of each the scale of least weighted error is the quotient of two sums (weighted least squares).
 */
import { halfValue, narrowHalf } from "./float16.js";

const SUPER = 256;

/** Code of a number: nearest, within bounds. */
const nearest = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, Math.round(value)));

/** Writes a half and gives the number that it holds. */
function writeHalf(out: Uint8Array, at: number, value: number): number {
  const bits = narrowHalf(value);
  out[at] = bits & 255;
  out[at + 1] = bits >> 8;
  return halfValue(bits);
}

/** Scale and minimum (not negative, to be taken off) of 32 elements as codes from 0 to `top`, which it puts at `result`. */
function fitPair(x: Float32Array, from: number, top: number, result: Float32Array): void {
  const n = 32;
  let [low, high, squares] = [0, Number.NEGATIVE_INFINITY, 0]; // the minimum is never above 0: codes have no sign
  for (let i = from; i < from + n; i++) {
    low = Math.min(low, x[i]!);
    high = Math.max(high, x[i]!);
    squares += x[i]! * x[i]!;
  }
  if (!(high > low)) {
    result[0] = 0;
    result[1] = -low;
    return;
  }
  const usual = Math.sqrt(squares / n); // elements of common size count too, large ones more
  let least = Number.POSITIVE_INFINITY;
  for (let step = -1; step <= 20; step++) {
    const inverse = (step < 0 ? top : top - 1 + 0.1 * step) / (high - low);
    let [sw, sq, sqq, sx, sqx, sxx] = [0, 0, 0, 0, 0, 0];
    for (let i = from; i < from + n; i++) {
      const value = x[i]!;
      const w = usual + Math.abs(value);
      const q = nearest((value - low) * inverse, 0, top);
      sw += w;
      sq += w * q;
      sqq += w * q * q;
      sx += w * value;
      sqx += w * q * value;
      sxx += w * value * value;
    }
    const determinant = sw * sqq - sq * sq;
    let scale = determinant > 0 ? (sw * sqx - sx * sq) / determinant : 1 / inverse;
    let minimum = determinant > 0 ? (sqq * sx - sq * sqx) / determinant : low;
    if (minimum > 0) {
      minimum = 0;
      scale = sqq > 0 ? sqx / sqq : 0;
    }
    // Σ w (scale·q + minimum - x)²
    const error =
      scale * scale * sqq + minimum * minimum * sw + sxx + 2 * (scale * minimum * sq - scale * sqx - minimum * sx);
    if (error >= least || scale < 0) continue;
    least = error;
    result[0] = scale;
    result[1] = -minimum;
  }
}

/** Q4_K: blocks of 144 bytes. */
export function quantizeQ4K(values: Float32Array): Uint8Array {
  return quantizePairs(values, 15, 144);
}

/** Q5_K: blocks of 176 bytes. */
export function quantizeQ5K(values: Float32Array): Uint8Array {
  return quantizePairs(values, 31, 176);
}

/** Eight parts of 32 with a scale and a minimum each; fifth bits stand before the others. */
function quantizePairs(values: Float32Array, top: number, bytes: number): Uint8Array {
  const out = new Uint8Array((values.length / SUPER) * bytes);
  const fit = new Float32Array(2);
  const [scales, minima] = [new Float32Array(8), new Float32Array(8)];
  const codes = new Uint8Array(SUPER);
  for (let from = 0, at = 0; from < values.length; from += SUPER, at += bytes) {
    for (let part = 0; part < 8; part++) {
      fitPair(values, from + 32 * part, top, fit);
      scales[part] = fit[0]!;
      minima[part] = fit[1]!;
    }
    const [most, mostMinimum] = [Math.max(...scales), Math.max(...minima)];
    const d = writeHalf(out, at, most / 63);
    const least = writeHalf(out, at + 2, mostMinimum / 63);
    for (let part = 0; part < 8; part++) {
      const s = most > 0 ? nearest((63 * scales[part]!) / most, 0, 63) : 0;
      const m = mostMinimum > 0 ? nearest((63 * minima[part]!) / mostMinimum, 0, 63) : 0;
      packScale(out, at + 4, part, s, m);
      const [scale, minimum] = [d * s, least * m];
      for (let i = 32 * part; i < 32 * (part + 1); i++)
        codes[i] = scale > 0 ? nearest((values[from + i]! + minimum) / scale, 0, top) : 0;
    }
    const low = at + bytes - 128;
    for (let i = 0; i < SUPER; i++) {
      const [pair, half, place] = [i >> 6, (i >> 5) & 1, i & 31];
      out[low + 32 * pair + place]! |= (codes[i]! & 15) << (4 * half);
      if (top > 15) out[at + 16 + place]! |= (codes[i]! >> 4) << (2 * pair + half);
    }
  }
  return out;
}

/** The inverse of gguf-super-blocks.ts's `unpackScales`, for one part; the bytes begin as zeros. */
function packScale(out: Uint8Array, at: number, part: number, scale: number, minimum: number): void {
  const i = part & 3;
  if (part < 4) {
    out[at + i]! |= scale;
    out[at + 4 + i]! |= minimum;
  } else {
    out[at + 8 + i] = (scale & 15) | ((minimum & 15) << 4);
    out[at + i]! |= (scale >> 4) << 6;
    out[at + 4 + i]! |= (minimum >> 4) << 6;
  }
}

/** Scale, of either sign, of 16 elements as codes from -32 to 31. */
function fitSigned(x: Float32Array, from: number): number {
  let largest = 0;
  for (let i = from; i < from + 16; i++) if (Math.abs(x[i]!) > Math.abs(largest)) largest = x[i]!;
  if (Math.abs(largest) < 1e-30) return 0;
  let best = 0;
  let scale = 0;
  for (let step = -9; step <= 9; step++) {
    const inverse = -(32 + 0.1 * step) / largest;
    let [products, squares] = [0, 0];
    for (let i = from; i < from + 16; i++) {
      const value = x[i]!;
      const q = nearest(value * inverse, -32, 31);
      const w = value * value;
      products += w * value * q;
      squares += w * q * q;
    }
    // With scale = products / squares the error is Σ w x² less this.
    const gain = squares > 0 ? (products * products) / squares : 0;
    if (gain <= best) continue;
    best = gain;
    scale = products / squares;
  }
  return scale;
}

/** Q6_K: blocks of 210 bytes. */
export function quantizeQ6K(values: Float32Array): Uint8Array {
  const out = new Uint8Array((values.length / SUPER) * 210);
  const scales = new Float32Array(16);
  const codes = new Uint8Array(SUPER);
  for (let from = 0, at = 0; from < values.length; from += SUPER, at += 210) {
    let largest = 0;
    for (let part = 0; part < 16; part++) {
      scales[part] = fitSigned(values, from + 16 * part);
      if (Math.abs(scales[part]!) > Math.abs(largest)) largest = scales[part]!;
    }
    const d = writeHalf(out, at + 208, largest / -128);
    for (let part = 0; part < 16; part++) {
      const s = largest === 0 ? 0 : nearest((-128 * scales[part]!) / largest, -128, 127);
      out[at + 192 + part] = s;
      const scale = d * s;
      for (let i = 16 * part; i < 16 * (part + 1); i++)
        codes[i] = 32 + (scale === 0 ? 0 : nearest(values[from + i]! / scale, -32, 31));
    }
    for (let half = 0; half < 2; half++) {
      for (let i = 0; i < 32; i++) {
        const q = [0, 1, 2, 3].map((quarter) => codes[128 * half + 32 * quarter + i]!) as [
          number,
          number,
          number,
          number,
        ];
        out[at + 64 * half + i] = (q[0] & 15) | ((q[2] & 15) << 4);
        out[at + 64 * half + 32 + i] = (q[1] & 15) | ((q[3] & 15) << 4);
        out[at + 128 + 32 * half + i] = (q[0] >> 4) | ((q[1] >> 4) << 2) | ((q[2] >> 4) << 4) | ((q[3] >> 4) << 6);
      }
    }
  }
  return out;
}
