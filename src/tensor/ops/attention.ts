import { ShapeError } from "../../errors.js";
import * as calls from "../calls.js";
import { record } from "../record.js";
import { shapeMismatch } from "../shape.js";
import { activationLike, emptyLike, requireOneDevice, type Tensor, view } from "../tensor.js";
import { inDType } from "./layout.js";
import { reserveRandom } from "./random.js";

/** Which rows attend to which: int32 tensors of one element a sequence (see `attention` in native/ops.def). */
export interface Segments {
  readonly count: number;
  readonly queryBegin: Tensor;
  readonly queryLength: Tensor;
  readonly keyBegin: Tensor;
  readonly keyLength: Tensor;
}

export interface AttentionOptions {
  heads: number;
  kvHeads: number;
  headDim: number;
  causal?: boolean;
  /** Keys a query sees, itself included; 0: all. */
  window?: number;
  /** Factor of the scores; 1/sqrt(headDim) by default. */
  scale?: number;
  /** Probability with which a weight of the average is dropped, after the softmax; 0 by default. */
  dropout?: number;
}

/** What stands beside the keys and values of a cache that has another dtype than the queries: for 8 bits a scale for each token and key head. */
interface Cached {
  readonly absmax: Tensor | undefined;
}
const cached = new WeakMap<Tensor, Cached>();

/** Marks keys or values as part of a cache, with the scales (float32, rows · kvHeads) of codes of 8 bits; `attention` reads them as they are. */
export function asCached(lines: Tensor, absmax: Tensor | undefined): void {
  cached.set(lines, { absmax });
}

/** Queries a sequence up to which a cache of another dtype is read as it is; for more it is restored as a whole. */
const FEW = 4;

/** Attention over a cache of 16 or 8 bits; without gradients. */
function attentionCached(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  segments: Segments,
  options: Required<Omit<AttentionOptions, "dropout">>,
): Tensor {
  const { heads, kvHeads, headDim, window, scale } = options;
  const { queryBegin, queryLength, keyBegin, keyLength, count } = segments;
  const scalesOf = (t: Tensor): Tensor | undefined => cached.get(t)?.absmax;
  const rows = k.dim(0);
  if (!options.causal || q.dim(0) > FEW * count || headDim > 256) {
    const restored = (t: Tensor): Tensor => {
      const absmax = scalesOf(t);
      if (!absmax) return inDType(t, q.dtype);
      const y = emptyLike(q, t.shape);
      calls.dequantizeInt8(t.handle, absmax.handle, y.handle, rows * kvHeads, headDim);
      return y;
    };
    return attention(q, restored(k), restored(v), segments, options);
  }
  const o = activationLike(q);
  calls.attentionCached(
    q.handle, k.handle, v.handle, scalesOf(k)?.handle ?? 0, scalesOf(v)?.handle ?? 0,
    queryBegin.handle, queryLength.handle, keyBegin.handle, keyLength.handle, o.handle,
    count, q.dim(0), rows, heads, kvHeads, headDim, window, scale,
  ); // biome-ignore format: one line a group
  record("attentionCached", [q], [o], "none");
  return o;
}

/**
 * Scaled dot-product attention over packed rows: q (rows, heads·headDim), k and v (rows, kvHeads·headDim), each kv head serving
 * heads/kvHeads consecutive heads. Computed in blocks with an online softmax (Dao et al. 2022): no T × T matrix exists.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments, options: AttentionOptions): Tensor {
  const { heads, kvHeads, headDim, causal = true, window = 0, scale = 1 / Math.sqrt(headDim) } = options;
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  if (q.dim(-1) !== width || k.dim(-1) !== kvWidth || v.dim(-1) !== kvWidth || k.dim(0) !== v.dim(0)) {
    shapeMismatch("attention", `q (rows, ${width}), k and v (rows, ${kvWidth})`, q.shape, k.shape, v.shape);
  }
  if (heads % kvHeads !== 0)
    throw new ShapeError(`attention: ${heads} heads cannot share ${kvHeads} key heads evenly.`);
  requireOneDevice("attention", q, k, v, segments.queryBegin);
  if (k.dtype !== q.dtype && cached.has(k))
    return attentionCached(q, k, v, segments, { heads, kvHeads, headDim, causal, window, scale });
  if (k.dtype !== q.dtype || v.dtype !== q.dtype)
    return attention(q, inDType(k, q.dtype), inDType(v, q.dtype), segments, options);
  return attend(
    [q, k, v],
    ([q, k, v]) => ({ q: q!, k: k!, v: v!, strides: [width, kvWidth, kvWidth] }),
    segments,
    options,
  );
}

/**
 * The same of one tensor qkv (rows, (heads + 2·kvHeads)·headDim) that holds q, k and v of a row side by side, as a joint projection makes them: nothing is copied, and the gradient
 * is one tensor too.
 */
export function attentionOfOne(qkv: Tensor, segments: Segments, options: AttentionOptions): Tensor {
  const { heads, kvHeads, headDim } = options;
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const row = width + 2 * kvWidth;
  if (qkv.dim(-1) !== row) shapeMismatch("attention", `q, k and v side by side (rows, ${row})`, qkv.shape);
  requireOneDevice("attention", qkv, segments.queryBegin);
  const part = (from: Tensor, offset: number): Tensor => view(from, [from.size - offset], offset);
  const place = ([all]: readonly Tensor[]): Operands => ({
    q: all!,
    k: part(all!, width),
    v: part(all!, width + kvWidth),
    strides: [row, row, row],
  });
  return attend([qkv], place, segments, options);
}

/** Queries, keys and values as the kernels take them: from their first elements on, with the distances of their rows. */
interface Operands {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly strides: readonly [number, number, number];
}

/** @param place where the operands stand in the inputs, or in tensors like them. */
function attend(
  inputs: readonly Tensor[],
  place: (inputs: readonly Tensor[]) => Operands,
  segments: Segments,
  options: AttentionOptions,
): Tensor {
  const { heads, kvHeads, headDim, causal = true, window = 0, scale = 1 / Math.sqrt(headDim), dropout = 0 } = options;
  const { queryBegin, queryLength, keyBegin, keyLength, count } = segments;
  const [like, kRows] = [inputs[0]!, inputs.at(-1)!.dim(0)];
  const qRows = like.dim(0);
  const o = activationLike(like, [qRows, heads * headDim]);
  const lse = emptyLike(like, [qRows, heads], "float32");
  const flag = causal ? 1 : 0;
  const random = dropout > 0 ? reserveRandom(4) : undefined;
  const seed = random ? (random.seed ^ Math.imul(random.offset + 1, 0x9e3779b1)) | 0 : 0; // gone through again with the same numbers
  const placed = <T>(tensors: readonly Tensor[], use: (at: Operands) => T): T => {
    const at = place(tensors);
    const result = use(at);
    for (const t of [at.q, at.k, at.v]) if (!tensors.includes(t)) t.dispose();
    return result;
  };
  placed(
    inputs,
    ({ q, k, v, strides: [qs, ks, vs] }) =>
    calls.attention(
      q.handle, k.handle, v.handle, queryBegin.handle, queryLength.handle, keyBegin.handle, keyLength.handle, o.handle, lse.handle,
      count, qRows, kRows, heads, kvHeads, headDim, qs, ks, vs, heads * headDim, flag, window, seed, scale, dropout,
    ), // biome-ignore format: one line a group
  );
  record(
    "attention",
    inputs,
    [o],
    (dO) => {
      const gradients = inputs.map((t) => activationLike(t));
      placed(inputs, ({ q, k, v, strides: [qs, ks, vs] }) =>
        placed(
          gradients,
          (d) =>
          calls.attentionBackward(
            q.handle, k.handle, v.handle, o.handle, lse.handle, dO.handle, queryBegin.handle, queryLength.handle, keyBegin.handle, keyLength.handle,
            d.q.handle, d.k.handle, d.v.handle, count, qRows, kRows, heads, kvHeads, headDim, qs, ks, vs, heads * headDim, flag, window, seed, scale, dropout,
          ), // biome-ignore format: one line a group
        ),
      );
      return gradients;
    },
    [lse],
    [...inputs, o],
  );
  return o;
}

/** Cosine and sine tables of rotary position embedding: (positions, rotaryDim/2). */
export interface RopeTables {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/** Rotary position embedding (Su et al. 2021) of x (rows, heads·headDim) at int32 `positions`, one a row. */
export function rope(
  x: Tensor,
  positions: Tensor,
  tables: RopeTables,
  options: { heads: number; headDim: number; rotaryDim?: number; interleaved?: boolean },
): Tensor {
  const { heads, headDim, rotaryDim = headDim, interleaved = false } = options;
  const rows = x.dim(0);
  if (x.dim(-1) !== heads * headDim || positions.size !== rows)
    shapeMismatch("rope", `x (rows, ${heads * headDim}) and one position a row`, x.shape, positions.shape);
  requireOneDevice("rope", x, positions, tables.cos, tables.sin);
  if (tables.cos.dim(1) * 2 !== rotaryDim)
    shapeMismatch("rope", `tables (positions, ${rotaryDim / 2})`, tables.cos.shape);
  const turn = (from: Tensor, inverse: 0 | 1): Tensor => {
    const to = activationLike(from);
    const stride = heads * headDim;
    const { cos, sin } = tables;
    calls.rope(
      from.handle,
      positions.handle,
      cos.handle,
      sin.handle,
      to.handle,
      rows,
      heads,
      headDim,
      rotaryDim,
      interleaved ? 1 : 0,
      inverse,
      stride,
      stride,
      cos.dim(0),
    );
    return to;
  };
  const y = turn(x, 0);
  record("rope", [x], [y], (dy) => [turn(dy, 1)], [], []);
  return y;
}
