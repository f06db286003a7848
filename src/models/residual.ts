import { checkpoint, discard } from "../autograd/checkpoint.js";
import type { Tensor } from "../tensor/tensor.js";

/** A norm that can add to the residual stream on its way: `RMSNorm`, `LayerNorm`, copies of them that are trained whole. */
export interface StreamNorm {
  forward(x: Tensor): Tensor;
  /** [dropout(x) + residual, its norm]; `share` is dropped of x, nothing by default. */
  forwardAdd(x: Tensor, residual: Tensor, share?: number): [Tensor, Tensor];
}

/**
 * Sends embedded tokens (rows, hidden) through blocks that norm before they read.
 *
 * @param norms that before each block, and the last one.
 * @param block from the residual stream and its norm to what is to be added to the stream at the end of the block, and the stream up to there.
 * @param share what is dropped of what a block adds at its end.
 * @returns the norm of the stream after the last block.
 */
export function residualStream(
  embedded: Tensor,
  norms: readonly StreamNorm[],
  block: (index: number, h: Tensor, normed: Tensor) => [Tensor, Tensor],
  share: (index: number) => number = () => 0,
): Tensor {
  let h = embedded;
  let normed = norms[0]!.forward(h);
  for (let i = 0; i + 1 < norms.length; i++) {
    const given = [h, normed];
    // The sum stands outside of the part: its gradient needs the result, which is kept anyway, so that the last product is not made twice.
    const [x, middle] = checkpoint((h, normed) => block(i, h!, normed!), given);
    [h, normed] = norms[i + 1]!.forwardAdd(x, middle, share(i));
    discard([...given, x, middle], [h, normed]);
  }
  discard([h], [normed]);
  return normed;
}
