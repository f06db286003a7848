import { discard } from "../autograd/checkpoint.js";
import { DataError } from "../errors.js";
import type { Sight } from "../images/patches.js";
import type { RowPictures } from "../nn/cache.js";
import { concat, slice } from "../tensor/ops/layout.js";
import type { Tensor } from "../tensor/tensor.js";
import type { ImageTokens } from "./mrope.js";

/** Where the tokens of an image stand, counted from the first row of all. */
export interface Shown extends ImageTokens {
  readonly tokens: number;
}

/** Where the images of a sequence stand. @throws DataError when its tokens and images do not fit each other. */
export function shownImages(
  { ids, begin, length, of }: RowPictures,
  s: number,
  { imageToken, settings }: Sight,
): Shown[] {
  const end = begin[s]! + length[s]!;
  const merged = settings.patchSize * settings.mergeSize;
  const found: Shown[] = [];
  let at = begin[s]!;
  for (const { tokens, width, height } of of[s]!) {
    while (at < end && ids[at] !== imageToken) at++;
    found.push({ at, tokens, down: height / merged, across: width / merged });
    for (const last = at + tokens; at < last; at++)
      if (at >= end || ids[at] !== imageToken)
        throw new DataError(
          `Sequence ${s} has ${of[s]!.length} images, the ${found.length}. of which takes ${tokens} tokens (id ${imageToken}): they are not there, or not whole.`,
        );
  }
  if (ids.subarray(at, end).includes(imageToken))
    throw new DataError(`Sequence ${s} has more image tokens (id ${imageToken}) than its ${found.length} images take.`);
  return found;
}

/** Embedded tokens (rows, hidden) with what was seen (tokens, hidden) in the images' places. */
export function spliced(text: Tensor, seen: Tensor, shown: readonly Shown[]): Tensor {
  const tokens = seen.dtype === text.dtype ? seen : seen.to(text.dtype);
  const pieces: Tensor[] = [];
  let row = 0;
  let token = 0;
  for (const image of shown) {
    if (image.at > row) pieces.push(slice(text, 0, row, image.at));
    pieces.push(slice(tokens, 0, token, token + image.tokens));
    row = image.at + image.tokens;
    token += image.tokens;
  }
  if (row < text.dim(0)) pieces.push(slice(text, 0, row, text.dim(0)));
  const y = concat(pieces);
  discard([...pieces, text, tokens, seen], [y]);
  return y;
}
