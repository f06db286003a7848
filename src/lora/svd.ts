import { gemm } from "../tensor/ops/matmul.js";
import { normal } from "../tensor/ops/random.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor, tensor } from "../tensor/tensor.js";

/** The largest singular values of a matrix (m, n), in falling order, with u (m, r) and v (n, r) column by column. */
export interface TopSvd {
  u: Float64Array[];
  s: Float64Array;
  v: Float64Array[];
}

/** Matrices whose shorter side is at most this are decomposed whole; of larger ones only the subspace that is wanted. */
const WHOLE = 128;
const OVERSAMPLED = 16;
const ROUNDS = 40;

/**
 * The best approximation of rank r: exact by one-sided Jacobi rotations (Hestenes 1958) for small matrices; for large ones by subspace iteration from
 * a random start (Halko, Martinsson and Tropp 2011) until the subspace takes up no more of the matrix. Products run on the matrix's device, the rest
 * on the host in float64.
 * @param w float32 (m, n); left as it is.
 */
export async function topSvd(w: Tensor, r: number): Promise<TopSvd> {
  const [m, n] = w.shape as [number, number];
  if (Math.min(m, n) <= WHOLE) {
    const data = await w.data();
    const tall = m >= n;
    const columns = Array.from({ length: tall ? n : m }, (_, j) =>
      Float64Array.from({ length: tall ? m : n }, (_, i) => (tall ? data[i * n + j]! : data[j * n + i]!)),
    );
    const { u, s, v } = cut(jacobi(columns), r);
    return tall ? { u, s, v } : { u: v, s, v: u };
  }
  const k = Math.min(r + OVERSAMPLED, m, n);
  let start = outsideScope(() => noGrad(() => normal([k, n], 0, 1, w.device))); // rows span a subspace of the inputs
  let before = 0;
  for (let round = 0; ; round++) {
    const left = orthonormal(await product(start, w, k, m, n, true)); // (k) columns of length m
    start.dispose();
    const q = onDevice(left, m, w);
    const right = await product(q, w, k, n, m, false); // Qᵀ W, (k) rows of length n
    q.dispose();
    const energy = right.reduce((sum, row) => sum + dot(row, row), 0);
    if (round === ROUNDS || (round > 1 && energy - before <= 1e-9 * energy)) {
      const { u, s, v } = cut(jacobi(right), r); // Wᵀ Q = U S Vᵀ
      return { u: v.map((c) => combine(left, c)), s, v: u };
    }
    before = energy;
    start = onDevice(orthonormal(right), n, w);
  }
}

/** rows (k, inner) times W or Wᵀ, as k rows on the host. */
async function product(
  rows: Tensor,
  w: Tensor,
  k: number,
  outer: number,
  inner: number,
  transposed: boolean,
): Promise<Float64Array[]> {
  const y = outsideScope(() => empty([k, outer], "float32", w.device));
  noGrad(() => gemm(rows, w, y, k, outer, inner, { transB: transposed }));
  const data = await y.data();
  y.dispose();
  return Array.from({ length: k }, (_, i) => Float64Array.from(data.subarray(i * outer, (i + 1) * outer)));
}

function onDevice(rows: readonly Float64Array[], length: number, like: Tensor): Tensor {
  const flat = new Float32Array(rows.length * length);
  rows.forEach((row, i) => {
    flat.set(row, i * length);
  });
  return outsideScope(() => tensor(flat, { shape: [rows.length, length], device: like.device }));
}

const dot = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

function subtract(from: Float64Array, b: Float64Array, factor: number): void {
  for (let i = 0; i < from.length; i++) from[i]! -= factor * b[i]!;
}

/** Gram and Schmidt's way, gone twice so that nothing of earlier vectors is left. A vector without a direction of its own becomes zeros. */
function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const done: Float64Array[] = [];
  for (const given of vectors) {
    const v = Float64Array.from(given);
    const length = Math.sqrt(dot(v, v));
    for (let pass = 0; pass < 2; pass++) for (const d of done) subtract(v, d, dot(v, d));
    const rest = Math.sqrt(dot(v, v));
    const own = rest > 1e-7 * length;
    for (let i = 0; i < v.length; i++) v[i] = own ? v[i]! / rest : 0;
    done.push(v);
  }
  return done;
}

/** Rotates pairs of columns until all are perpendicular: their lengths are the singular values. The columns are used up. */
function jacobi(columns: Float64Array[]): TopSvd {
  const n = columns.length;
  const turns = Array.from({ length: n }, (_, j) => Float64Array.from({ length: n }, (_, i) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 60; sweep++) {
    let turned = false;
    for (let p = 0; p < n - 1; p++)
      for (let q = p + 1; q < n; q++) {
        const [a, b] = [columns[p]!, columns[q]!];
        const [pp, qq, pq] = [dot(a, a), dot(b, b), dot(a, b)];
        if (Math.abs(pq) <= 1e-14 * Math.sqrt(pp * qq) || pq === 0) continue;
        turned = true;
        const zeta = (qq - pp) / (2 * pq);
        const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
        const c = 1 / Math.hypot(1, t);
        rotate(a, b, c, c * t);
        rotate(turns[p]!, turns[q]!, c, c * t);
      }
    if (!turned) break;
  }
  const lengths = columns.map((c) => Math.sqrt(dot(c, c)));
  const order = [...lengths.keys()].sort((i, j) => lengths[j]! - lengths[i]!);
  const u = order.map((j) => columns[j]!.map((x) => (lengths[j]! > 0 ? x / lengths[j]! : 0)));
  return { u, s: Float64Array.from(order, (j) => lengths[j]!), v: order.map((j) => turns[j]!) };
}

function rotate(a: Float64Array, b: Float64Array, c: number, s: number): void {
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

function cut({ u, s, v }: TopSvd, r: number): TopSvd {
  return { u: u.slice(0, r), s: s.slice(0, r), v: v.slice(0, r) };
}

function combine(basis: readonly Float64Array[], coefficients: Float64Array): Float64Array {
  const out = new Float64Array(basis[0]!.length);
  basis.forEach((b, i) => {
    subtract(out, b, -coefficients[i]!);
  });
  return out;
}
