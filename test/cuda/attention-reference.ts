// Attention over packed rows and its gradient in float64, as native/ops.def says it.

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly dim: number;
  /** First row and number of rows of each sequence. */
  readonly q: readonly (readonly [begin: number, length: number])[];
  readonly k: readonly (readonly [begin: number, length: number])[];
  readonly causal: boolean;
  readonly window: number;
  readonly qRows: number;
  readonly kRows: number;
  readonly qStride: number;
  readonly kStride: number;
  readonly vStride: number;
  readonly oStride: number;
  readonly scale: number;
  readonly dropout: number;
  readonly seed: number;
}

function mix(h: number): number {
  let x = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** What the probability of a key is multiplied by. */
function gain(s: AttentionShape, row: number, head: number, key: number): number {
  if (s.dropout === 0) return 1;
  const ofRow = mix((s.seed + row * s.heads + head) | 0) | 1;
  const ofKey = mix(s.seed ^ Math.imul(key + 1, 0x9e3779b1)) | 1;
  return Math.imul(ofRow, ofKey) >>> 0 < Math.floor(Math.fround(s.dropout) * 2 ** 32) ? 0 : 1 / (1 - s.dropout);
}

/** Keys that a query of a sequence sees, from `first` to `last`; none if last < first. */
export function sight(s: AttentionShape, sequence: number, query: number): { first: number; last: number } {
  const keys = s.k[sequence]![1];
  const last = s.causal ? keys - s.q[sequence]![1] + query : keys - 1;
  return { first: s.window > 0 ? Math.max(0, last - s.window + 1) : 0, last };
}

/** One query of one head: where its rows start in the tensors. */
interface Query {
  readonly row: number;
  readonly head: number;
  readonly q: number;
  readonly o: number;
  readonly first: number;
  readonly last: number;
  /** Element of a key's row in k and in v. */
  readonly k: (key: number) => number;
  readonly v: (key: number) => number;
}

function* queries(s: AttentionShape): Generator<Query> {
  for (const [n, [begin, length]] of s.q.entries())
    for (let i = 0; i < length; i++)
      for (let head = 0; head < s.heads; head++) {
        const row = begin + i;
        const at = Math.floor(head / (s.heads / s.kvHeads)) * s.dim;
        const keys = s.k[n]![0];
        yield {
          row,
          head,
          q: row * s.qStride + head * s.dim,
          o: row * s.oStride + head * s.dim,
          ...sight(s, n, i),
          k: (key) => (keys + key) * s.kStride + at,
          v: (key) => (keys + key) * s.vStride + at,
        };
      }
}

/** Elements of `rows` rows that stand `stride` apart. */
export function span(rows: number, width: number, stride: number): number {
  return rows === 0 ? 0 : (rows - 1) * stride + width;
}

/** Zeros where a head's numbers go, NaN in the gaps between rows, which nobody writes. */
function rowsOf(rows: number, width: number, stride: number): Float64Array {
  return Float64Array.from({ length: span(rows, width, stride) }, (_, i) => (i % stride < width ? 0 : Number.NaN));
}

const dot = (a: Float64Array, i: number, b: Float64Array, j: number, n: number): number => {
  let sum = 0;
  for (let d = 0; d < n; d++) sum += a[i + d]! * b[j + d]!;
  return sum;
};

/** o and lse. */
export function attend(
  s: AttentionShape,
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
): [Float64Array, Float64Array] {
  const o = rowsOf(s.qRows, s.heads * s.dim, s.oStride);
  const lse = new Float64Array(s.qRows * s.heads).fill(Number.NEGATIVE_INFINITY);
  for (const at of queries(s)) {
    const scores: number[] = [];
    for (let j = at.first; j <= at.last; j++) scores.push(dot(q, at.q, k, at.k(j), s.dim) * s.scale);
    if (scores.length === 0) continue;
    const most = scores.reduce((a, b) => Math.max(a, b));
    const sum = scores.reduce((total, x) => total + Math.exp(x - most), 0);
    lse[at.row * s.heads + at.head] = most + Math.log(sum);
    for (const [j, x] of scores.entries()) {
      const weight = (Math.exp(x - most) / sum) * gain(s, at.row, at.head, at.first + j);
      const from = at.v(at.first + j);
      for (let d = 0; d < s.dim; d++) o[at.o + d]! += weight * v[from + d]!;
    }
  }
  return [o, lse];
}

/** dq, dk and dv from what the forward pass kept; o and lse are taken as they are given. */
export function attendBackward(
  s: AttentionShape,
  [q, k, v, o, lse, dO]: readonly Float64Array[],
): [Float64Array, Float64Array, Float64Array] {
  if (!q || !k || !v || !o || !lse || !dO) throw new Error("q, k, v, o, lse and do are needed");
  const dq = rowsOf(s.qRows, s.heads * s.dim, s.qStride);
  const dk = rowsOf(s.kRows, s.kvHeads * s.dim, s.kStride);
  const dv = rowsOf(s.kRows, s.kvHeads * s.dim, s.vStride);
  for (const at of queries(s)) {
    const delta = dot(o, at.o, dO, at.o, s.dim);
    for (let j = at.first; j <= at.last; j++) {
      const [key, value] = [at.k(j), at.v(j)];
      const weight = Math.exp(dot(q, at.q, k, key, s.dim) * s.scale - lse[at.row * s.heads + at.head]!);
      const kept = gain(s, at.row, at.head, j);
      const slope = weight * (dot(dO, at.o, v, value, s.dim) * kept - delta) * s.scale;
      for (let d = 0; d < s.dim; d++) {
        dv[value + d]! += weight * kept * dO[at.o + d]!;
        dq[at.q + d]! += slope * k[key + d]!;
        dk[key + d]! += slope * q[at.q + d]!;
      }
    }
  }
  return [dq, dk, dv];
}
