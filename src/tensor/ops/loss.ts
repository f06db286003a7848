import * as calls from "../calls.js";
import { COMPUTE_CODE, computeOf, type FloatDType } from "../dtype.js";
import { leafGradient } from "../gradient.js";
import * as native from "../native.js";
import { isRecording, record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, Tensor } from "../tensor.js";
import { affine, fill } from "./elementwise.js";
import { widened } from "./layout.js";
import { requireFloat32 } from "./matmul.js";
import { reduce } from "./reduce.js";

/**
 * Rows of `weight` (vocab, dim) at int32 `ids` (…): (…, dim).
 * @param dtype of the rows where the device computes in 16 bits (by default the weight's): what follows keeps it. Elsewhere they are float32.
 */
export function embedding(weight: Tensor, ids: Tensor, dtype: FloatDType = weight.dtype as FloatDType): Tensor {
  const [vocab, dim] = weight.shape as [number, number];
  requireOneDevice("embedding", weight, ids);
  const y = emptyLike(ids, [...ids.shape, dim], native.takesHalves(ids.place) ? dtype : "float32");
  calls.embedding(weight.handle, ids.handle, y.handle, ids.size, dim, vocab);
  const back = (dy: Tensor): [Tensor | undefined] => {
    requireFloat32(weight);
    const leaf = leafGradient(weight);
    const dw = leaf?.grad ?? emptyLike(weight, weight.shape, "float32");
    if (!leaf || leaf.beta === 0) fill(dw, 0);
    calls.embeddingBackward(dy.handle, ids.handle, dw.handle, ids.size, dim, vocab);
    return [leaf ? undefined : dw];
  };
  record("embedding", [weight], [y], back, [], [ids]);
  return y;
}

/** Cross entropy of each row of logits (…, vocab) with int32 labels (…), in nats; label -100: 0. */
export function crossEntropy(given: Tensor, labels: Tensor, smoothing = 0): Tensor {
  const logits = widened(given);
  const vocab = logits.dim(-1);
  const rows = logits.size / vocab;
  if (labels.size !== rows) shapeMismatch("crossEntropy", `${rows} labels`, labels.shape);
  requireOneDevice("crossEntropy", logits, labels);
  const loss = emptyLike(logits, labels.shape, "float32");
  const lse = emptyLike(logits, [rows], "float32");
  calls.crossEntropy(logits.handle, labels.handle, loss.handle, lse.handle, rows, vocab, smoothing);
  record(
    "crossEntropy",
    [logits],
    [loss],
    (dloss) => {
      const dx = activationLike(logits);
      calls.crossEntropyBackward(
        logits.handle,
        labels.handle,
        lse.handle,
        dloss.handle,
        dx.handle,
        rows,
        vocab,
        smoothing,
      );
      return [dx];
    },
    [lse],
  );
  return loss;
}

/**
 * Sum of cross entropies of x Wᵀ with int32 labels, times `scale`, one element: x (rows, dim), weight (vocab, dim). Rows are taken in chunks
 * and their gradients made in the same pass, so the full logits never exist. Call it last: its gradients are those of the returned value itself.
 * @returns total: scale · sum; rows: the unscaled loss of each row (no gradient).
 */
export function linearCrossEntropy(
  given: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: { scale?: number; smoothing?: number; chunk?: number; gradients?: boolean } = {},
): { total: Tensor; rows: Tensor } {
  const { scale = 1, smoothing = 0, chunk = 0, gradients = isRecording() } = options;
  const x = widened(given);
  const [vocab, dim] = weight.shape as [number, number];
  const rows = x.size / dim;
  if (x.dim(-1) !== dim || labels.size !== rows)
    shapeMismatch(
      "linearCrossEntropy",
      "x (rows, dim), weight (vocab, dim), labels (rows)",
      x.shape,
      weight.shape,
      labels.shape,
    );
  requireOneDevice("linearCrossEntropy", x, weight, labels);
  const loss = emptyLike(x, [rows], "float32");
  const dx = gradients && x.requiresGrad ? activationLike(x) : undefined;
  if (gradients && weight.requiresGrad) requireFloat32(weight);
  const dw = gradients && weight.requiresGrad ? fill(emptyLike(weight), 0) : undefined;
  calls.linearCrossEntropy(
    x.handle,
    weight.handle,
    labels.handle,
    loss.handle,
    dx?.handle ?? 0,
    dw?.handle ?? 0,
    rows,
    dim,
    vocab,
    chunk,
    COMPUTE_CODE[computeOf(weight.dtype)],
    scale,
    smoothing,
  );
  const sum = reduce("sum", loss);
  const total = affine(sum, scale, 0);
  sum.dispose();
  if (!gradients) return { total, rows: loss };
  record(
    "linearCrossEntropy",
    [x, weight],
    [total],
    (upstream) => [dx && upstreamTimes(upstream, dx), dw && upstreamTimes(upstream, dw)],
    [dx, dw].filter((t) => t !== undefined),
    [],
  );
  return { total, rows: loss };
}

// The upstream gradient is a device scalar, nearly always 1 (the total is what backward() starts from): one cheap pass in place keeps it exact.
function upstreamTimes(upstream: Tensor, gradient: Tensor): Tensor {
  const { shape, dtype, size } = gradient;
  const out = new Tensor(gradient.surrender(), shape, dtype);
  calls.binary(out.handle, upstream.handle, out.handle, 2, 1, 1, 1, size, 0, 0, 0, 1, 0, 0, 0, 0);
  return out;
}
