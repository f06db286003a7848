import { DataError } from "../errors.js";
import type { Pixels } from "./decode.js";

/** The weights of the inputs that make each output of a row. */
interface Taps {
  /** First input of each output. */
  readonly begin: Int32Array;
  readonly count: Int32Array;
  /** Integer weights, `most` places an output. */
  readonly weights: Int32Array;
  readonly most: number;
  /** Their scale: a weight of 1 is 2^bits. */
  readonly bits: number;
}

/**
 * Bicubic resize (a = -0.5) with antialiasing, in the integer arithmetic of torch's kernel for 8-bit images, which transformers' image processors run
 * through torchvision: along the rows, rounded to 8 bits, then along the columns.
 */
export function resize(image: Pixels, width: number, height: number): Pixels {
  if (width === image.width && height === image.height) return image;
  const rows = width === image.width ? image.data : horizontal(image, width);
  const data = height === image.height ? rows : vertical(rows, width, image.height, height);
  return { width, height, data };
}

function horizontal({ data, width, height }: Pixels, to: number): Uint8Array {
  const { begin, count, weights, most, bits } = taps(width, to);
  const out = new Uint8ClampedArray(height * to * 3);
  const half = 1 << (bits - 1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < to; x++) {
      let [r, g, b] = [half, half, half];
      let at = (y * width + begin[x]!) * 3;
      for (let k = x * most, end = k + count[x]!; k < end; k++) {
        const w = weights[k]!;
        r += data[at]! * w;
        g += data[at + 1]! * w;
        b += data[at + 2]! * w;
        at += 3;
      }
      const o = (y * to + x) * 3;
      out[o] = r >> bits;
      out[o + 1] = g >> bits;
      out[o + 2] = b >> bits;
    }
  }
  return new Uint8Array(out.buffer);
}

function vertical(data: Uint8Array, width: number, height: number, to: number): Uint8Array {
  const { begin, count, weights, most, bits } = taps(height, to);
  const line = width * 3;
  const out = new Uint8ClampedArray(to * line);
  const sums = new Int32Array(line);
  for (let y = 0; y < to; y++) {
    sums.fill(1 << (bits - 1));
    for (let k = 0; k < count[y]!; k++) {
      const w = weights[y * most + k]!;
      const at = (begin[y]! + k) * line;
      for (let i = 0; i < line; i++) sums[i] = sums[i]! + data[at + i]! * w;
    }
    for (let i = 0; i < line; i++) out[y * line + i] = sums[i]! >> bits;
  }
  return new Uint8Array(out.buffer);
}

function taps(from: number, to: number): Taps {
  const scale = from / to;
  const stretch = Math.max(1, scale);
  const support = 2 * stretch;
  const most = Math.ceil(support) * 2 + 1;
  const begin = new Int32Array(to);
  const count = new Int32Array(to);
  const exact = new Float64Array(to * most);
  let largest = 0;
  for (let x = 0; x < to; x++) {
    const center = scale * (x + 0.5);
    begin[x] = Math.max(Math.trunc(center - support + 0.5), 0);
    count[x] = Math.min(Math.max(Math.min(Math.trunc(center + support + 0.5), from) - begin[x]!, 0), most);
    let sum = 0;
    for (let k = 0; k < count[x]!; k++) {
      const w = cubic((k + begin[x]! - center + 0.5) / stretch);
      exact[x * most + k] = w;
      sum += w;
    }
    for (let k = 0; k < count[x]!; k++) {
      const w = sum === 0 ? 0 : exact[x * most + k]! / sum;
      exact[x * most + k] = w;
      largest = Math.max(largest, w);
    }
  }
  // As many bits as leave the largest weight in 16.
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  const weights = Int32Array.from(exact, (w) => Math.trunc(w * 2 ** bits + (w < 0 ? -0.5 : 0.5)));
  return { begin, count, weights, most, bits };
}

/** Keys' cubic kernel (1981) with a = -0.5. */
function cubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/** What bounds the pixels of a resized image. */
export interface PixelLimits {
  readonly minPixels: number;
  readonly maxPixels: number;
}

/**
 * The size to which Qwen2-VL brings an image: both sides multiples of `factor`, the area within the limits, the ratio of the sides kept as closely as
 * possible (transformers' `smart_resize`).
 *
 * @throws DataError for an image 200 times as long as wide.
 */
export function smartSize(
  { width, height }: { width: number; height: number },
  factor: number,
  { minPixels, maxPixels }: PixelLimits,
  where: string,
): { width: number; height: number } {
  const ratio = Math.max(width, height) / Math.min(width, height);
  if (!(ratio <= 200))
    throw new DataError(
      `${where} has ${width} x ${height} pixels: one side may be at most 200 times the other. Cut it.`,
    );
  const to = (side: number): number => nearestEven(side / factor) * factor;
  const [w, h] = [to(width), to(height)];
  if (w * h > maxPixels) {
    const beta = Math.sqrt((width * height) / maxPixels);
    const less = (side: number): number => Math.max(factor, Math.floor(side / beta / factor) * factor);
    return { width: less(width), height: less(height) };
  }
  if (w * h < minPixels) {
    const beta = Math.sqrt(minPixels / (width * height));
    const more = (side: number): number => Math.ceil((side * beta) / factor) * factor;
    return { width: more(width), height: more(height) };
  }
  return { width: w, height: h };
}

/** Python's round: halves go to the even neighbour. */
function nearestEven(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
