import * as calls from "../calls.js";
import { COMPUTE_CODE, computeOf, type FloatDType } from "../dtype.js";
import { leafGradient } from "../gradient.js";
import * as native from "../native.js";
import { isRecording, record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, Tensor, view } from "../tensor.js";
import { affine, fill } from "./elementwise.js";
import { inDType, widened } from "./layout.js";
import { gemm, requireFloat32 } from "./matmul.js";
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
  checkHead("linearCrossEntropy", x, weight, labels);
  const dx = gradients && x.requiresGrad ? activationLike(x) : undefined;
  if (gradients && weight.requiresGrad) requireFloat32(weight);
  const dw = gradients && weight.requiresGrad ? fill(emptyLike(weight), 0) : undefined;
  const loss = headLosses(x, weight, labels, { dx, dw, chunk, scale, smoothing });
  const sum = reduce("sum", loss);
  const total = affine(sum, scale, 0);
  sum.dispose();
  if (!gradients) return { total, rows: loss };
  record(
    "linearCrossEntropy",
    [x, weight],
    [total],
    (upstream) => [dx && timesUpstream(dx, upstream, 1), dw && timesUpstream(dw, upstream, 1)],
    [dx, dw].filter((t) => t !== undefined),
    [],
  );
  return { total, rows: loss };
}

/**
 * Cross entropy of each row of x Wᵀ with int32 labels (-100: 0), in nats: x (rows, dim), weight (vocab, dim) → (rows). As `linearCrossEntropy`
 * it takes rows in chunks, so the full logits never exist; but each row's gradient may be weighted by what is computed from the losses.
 * Of a frozen weight the gradients are made in the same pass, of a trained one in a second pass over the logits.
 */
export function linearCrossEntropyRows(
  given: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: { smoothing?: number; chunk?: number } = {},
): Tensor {
  const { smoothing = 0, chunk = 0 } = options;
  const x = widened(given);
  checkHead("linearCrossEntropyRows", x, weight, labels);
  const trained = isRecording() && weight.requiresGrad;
  if (trained) requireFloat32(weight);
  const dx = isRecording() && x.requiresGrad && !trained ? activationLike(x) : undefined;
  const loss = headLosses(x, weight, labels, { dx, chunk, scale: 1, smoothing });
  if (trained) {
    const back = (upstream: Tensor): (Tensor | undefined)[] =>
      trainedHeadGradients(x, weight, labels, upstream, smoothing, chunk);
    record("linearCrossEntropyRows", [x, weight], [loss], back, [], [x, weight, labels]);
  } else if (dx) {
    const back = (upstream: Tensor): [Tensor] => [timesUpstream(dx, upstream, x.size / x.dim(-1))];
    record("linearCrossEntropyRows", [x], [loss], back, [dx], []);
  }
  return loss;
}

function checkHead(op: string, x: Tensor, weight: Tensor, labels: Tensor): void {
  const dim = weight.dim(1);
  if (x.dim(-1) !== dim || labels.size !== x.size / dim)
    shapeMismatch(op, "x (rows, dim), weight (vocab, dim), labels (rows)", x.shape, weight.shape, labels.shape);
  requireOneDevice(op, x, weight, labels);
}

/** Each row's cross entropy (rows); `dx` and `dw` are filled with the gradients of scale · Σ of them. */
function headLosses(
  x: Tensor,
  weight: Tensor,
  labels: Tensor,
  o: { dx?: Tensor | undefined; dw?: Tensor | undefined; chunk: number; scale: number; smoothing: number },
): Tensor {
  const [vocab, dim] = weight.shape as [number, number];
  const rows = x.size / dim;
  const loss = emptyLike(x, [rows], "float32");
  calls.linearCrossEntropy(
    x.handle,
    weight.handle,
    labels.handle,
    loss.handle,
    o.dx?.handle ?? 0,
    o.dw?.handle ?? 0,
    rows,
    dim,
    vocab,
    o.chunk,
    COMPUTE_CODE[computeOf(weight.dtype)],
    o.scale,
    o.smoothing,
  );
  return loss;
}

// Elements of a chunk's logits, of which its gradient needs as many again: 64 MB each.
const CHUNK_LOGITS = 2 ** 24;

/** Gradients of x and of a trained head's weight, for gradients `upstream` (rows) of each row's cross entropy. */
function trainedHeadGradients(
  given: Tensor,
  weight: Tensor,
  labels: Tensor,
  upstream: Tensor,
  smoothing: number,
  most: number,
): (Tensor | undefined)[] {
  const [vocab, dim] = weight.shape as [number, number];
  const rows = given.size / dim;
  const x = inDType(given, "float32");
  const dx = given.requiresGrad ? emptyLike(x) : undefined;
  const leaf = leafGradient(weight);
  const dw = leaf?.grad ?? emptyLike(weight);
  if (!leaf || leaf.beta === 0) fill(dw, 0);
  const chunk = Math.min(rows, most > 0 ? most : Math.max(1, Math.floor(CHUNK_LOGITS / vocab)));
  const logits = emptyLike(x, [chunk, vocab]);
  const dlogits = emptyLike(x, [chunk, vocab]);
  const figures = emptyLike(x, [2, chunk]);
  const [loss, lse] = [view(figures, [chunk], 0), view(figures, [chunk], chunk)];
  for (let at = 0; at < rows; at += chunk) {
    const count = Math.min(chunk, rows - at);
    const xs = view(x, [count, dim], at * dim);
    const own = view(labels, [count], at);
    const weights = view(upstream, [count], at);
    gemm(xs, weight, logits, count, vocab, dim, { transB: true });
    calls.crossEntropy(logits.handle, own.handle, loss.handle, lse.handle, count, vocab, smoothing);
    const [l, d] = [logits.handle, dlogits.handle];
    calls.crossEntropyBackward(l, own.handle, lse.handle, weights.handle, d, count, vocab, smoothing);
    if (dx) {
      const dxs = view(dx, [count, dim], at * dim);
      gemm(dlogits, weight, dxs, count, dim, vocab);
      dxs.dispose();
    }
    gemm(dlogits, xs, dw, vocab, dim, count, { transA: true, beta: 1 });
    for (const t of [xs, own, weights]) t.dispose();
  }
  for (const t of [loss, lse, figures, logits, dlogits]) t.dispose();
  if (x !== given) x.dispose();
  return [dx, leaf ? undefined : dw];
}

// A gradient that stands ready is multiplied in place by its upstream one: a device scalar (nearly always 1, the total is what backward() starts
// from), or one number for each of `rows` rows. One cheap pass keeps it exact.
function timesUpstream(gradient: Tensor, upstream: Tensor, rows: number): Tensor {
  const { shape, dtype, size } = gradient;
  const cols = size / rows;
  const out = new Tensor(gradient.surrender(), shape, dtype);
  calls.binary(out.handle, upstream.handle, out.handle, 2, 1, 1, rows, cols, 0, 0, cols, 1, 0, 0, rows > 1 ? 1 : 0, 0);
  return out;
}
