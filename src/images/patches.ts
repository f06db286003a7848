import type { Pixels } from "./decode.js";
import type { PixelLimits } from "./resize.js";

/** How images become the input of a vision tower. */
export interface PictureSettings extends PixelLimits {
  /** Side of a patch in pixels. */
  readonly patchSize: number;
  /** Patches of a side that are merged into one token. */
  readonly mergeSize: number;
  /** Frames of a patch: an image stands in each of them. */
  readonly temporalPatchSize: number;
  /** Means and deviations of red, green and blue, of values from 0 to 1. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** How a model takes images. */
export interface Sight {
  /** The token that stands for a piece of an image. */
  readonly imageToken: number;
  readonly settings: PictureSettings;
}

/** What makes tokens of an image, as far as its cost goes. Each patch of an image sees all others. */
export interface Tower {
  /** What the names of its parameters begin with, and those of its blocks. */
  readonly prefix: string;
  readonly blocks: string;
  readonly depth: number;
  readonly dim: number;
  /** Rows that a parameter is multiplied with for one token of an image. */
  rowsPerToken(name: string): number;
}

/** Qwen2-VL's, where a checkpoint brings no other: those of CLIP (Radford et al. 2021). */
export const QWEN2_VL_PICTURES: PictureSettings = {
  minPixels: 56 * 56,
  maxPixels: 12_845_056,
  patchSize: 14,
  mergeSize: 2,
  temporalPatchSize: 2,
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

/** An image at the size at which a model sees it. */
export interface Picture extends Pixels {
  /** Tokens that it takes. */
  readonly tokens: number;
}

/** Numbers of a patch: channels · frames · side · side. */
export function patchWidth({ patchSize, temporalPatchSize }: PictureSettings): number {
  return 3 * temporalPatchSize * patchSize * patchSize;
}

/** Patches of an image down and across. */
export function patchGrid(image: Pixels, { patchSize }: PictureSettings): [down: number, across: number] {
  return [image.height / patchSize, image.width / patchSize];
}

/**
 * The patches of images (patches, channels · frames · side · side), one image after another, normalised as transformers does it. The patches that become
 * a token stand together: blocks row by row, in each block its patches row by row.
 */
export function patchesOf(images: readonly Pixels[], settings: PictureSettings): Float32Array {
  const width = patchWidth(settings);
  const counts = images.map((image) => {
    const [down, across] = patchGrid(image, settings);
    return down * across;
  });
  const out = new Float32Array(counts.reduce((sum, n) => sum + n, 0) * width);
  const levels = levelTable(settings);
  let at = 0;
  images.forEach((image, i) => {
    const own = out.subarray(at, (at += counts[i]! * width));
    if (image.data.length > 0) fill(own, image, levels, settings); // of a planned one nothing but its size is known
  });
  return out;
}

/** An image of so many tokens without pixels: to go through a model that computes nothing. */
export function plannedPicture(tokens: number, { patchSize, mergeSize }: PictureSettings): Picture {
  const side = patchSize * mergeSize;
  return { width: tokens * side, height: side, data: new Uint8Array(), tokens };
}

// The value of each of 256 levels in each channel, rounded where torch rounds: (x - 255 mean) / (255 std).
function levelTable({ mean, std }: PictureSettings): Float32Array[] {
  const scale = 1 / (1 / 255);
  return [0, 1, 2].map((c) => {
    const middle = Math.fround(Math.fround(mean[c]!) * scale);
    const spread = Math.fround(Math.fround(std[c]!) * scale);
    return Float32Array.from({ length: 256 }, (_, x) => Math.fround(x - middle) / spread);
  });
}

function fill(out: Float32Array, image: Pixels, levels: Float32Array[], settings: PictureSettings): void {
  const { patchSize: side, mergeSize: merge, temporalPatchSize: frames } = settings;
  const [down, across] = patchGrid(image, settings);
  const area = side * side;
  let at = 0;
  const patch = (py: number, px: number): void => {
    for (let c = 0; c < 3; c++) {
      const level = levels[c]!;
      const begin = at;
      for (let y = 0; y < side; y++) {
        let from = ((py * side + y) * image.width + px * side) * 3 + c;
        for (let x = 0; x < side; x++, from += 3) out[at++] = level[image.data[from]!]!;
      }
      for (let f = 1; f < frames; f++, at += area) out.copyWithin(at, begin, begin + area);
    }
  };
  for (let by = 0; by < down; by += merge)
    for (let bx = 0; bx < across; bx += merge)
      for (let y = by; y < by + merge; y++) for (let x = bx; x < bx + merge; x++) patch(y, x);
}
