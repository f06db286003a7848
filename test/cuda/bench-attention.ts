// Time of attention on the GPU, forward and backward, by raw calls: node dist/test/cuda/bench-attention.js [part of a name]
// FLOP are those of the products that the result needs (2 forward, 5 backward), over the keys that each query sees. With TUNEBOOK_KERNEL_TIMES=1 the kernels of
// both passes are listed at the end, one by one: name one shape then.
import { attention, attentionBackward } from "../../src/tensor/calls.js";
import { openDevice, settle } from "../../src/tensor/native.js";
import { empty, type Tensor, view } from "../../src/tensor/tensor.js";

interface Shape {
  name: string;
  dtype?: "bfloat16" | "float16" | "float32";
  /** Queries of each sequence; keys by default as many. */
  rows: number[];
  keys?: number[];
  heads: number;
  kvHeads: number;
  dim: number;
  causal?: boolean;
  window?: number;
  dropout?: number;
  forwardOnly?: boolean;
  /** q, k and v stand side by side in one tensor, their gradients too, as a joint projection makes them. */
  beside?: boolean;
}

const SHAPES: Shape[] = [
  { name: "8B, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 128 },
  { name: "8B, 4 x 2,048, float16", dtype: "float16", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 128 },
  {
    name: "8B, 8 documents in 8,192",
    rows: [3000, 200, 1700, 900, 64, 1028, 800, 500],
    heads: 32,
    kvHeads: 8,
    dim: 128,
  },
  { name: "8B, 1 x 16,384", rows: [16384], heads: 32, kvHeads: 8, dim: 128 },
  { name: "full, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 128, causal: false },
  { name: "dropout 0.1, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 128, dropout: 0.1 },
  { name: "window 512, 1 x 8,192", rows: [8192], heads: 32, kvHeads: 8, dim: 128, window: 512 },
  { name: "1.5B, 16 x 512", rows: new Array<number>(16).fill(512), heads: 12, kvHeads: 2, dim: 128 },
  { name: "48 heads on one, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 48, kvHeads: 1, dim: 128, beside: true },
  // As StarCoder trains.
  {
    name: "48 on one, dropout 0.1",
    rows: [2048, 2048, 2048, 2048],
    heads: 48,
    kvHeads: 1,
    dim: 128,
    dropout: 0.1,
    beside: true,
  },
  { name: "heads of 64, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 64 },
  { name: "heads of 96, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 32, kvHeads: 8, dim: 96 },
  { name: "heads of 256, 4 x 2,048", rows: [2048, 2048, 2048, 2048], heads: 16, kvHeads: 8, dim: 256 },
  { name: "float32, 2 x 1,024", dtype: "float32", rows: [1024, 1024], heads: 16, kvHeads: 8, dim: 128 },
  { name: "decode 1 x 2,048", rows: [1], keys: [2048], heads: 32, kvHeads: 8, dim: 128, forwardOnly: true },
  { name: "decode 1 x 32,768", rows: [1], keys: [32768], heads: 32, kvHeads: 8, dim: 128, forwardOnly: true },
  {
    name: "decode 32 x 2,048",
    rows: new Array<number>(32).fill(1),
    keys: new Array<number>(32).fill(2048),
    heads: 32,
    kvHeads: 8,
    dim: 128,
    forwardOnly: true,
  },
];

function random(shape: number[], dtype: "bfloat16" | "float16" | "float32"): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const x = empty(shape, dtype, "cuda");
  // 16-bit patterns with an exponent near 1, float32 numbers in [-1, 1): no zeros, which run faster than real data.
  const bits = (): number => {
    const sign = Math.random() < 0.5 ? 0x8000 : 0;
    return dtype === "bfloat16"
      ? sign | (0x3e80 + Math.floor(Math.random() * 0x100))
      : sign | (0x3400 + Math.floor(Math.random() * 0x800));
  };
  return x.set(
    dtype === "float32"
      ? Float32Array.from({ length: n }, () => 2 * Math.random() - 1)
      : Uint16Array.from({ length: n }, bits),
  );
}

const int32 = (values: number[]): Tensor => empty([values.length], "int32", "cuda").set(Int32Array.from(values));
const begins = (lengths: number[]): number[] => lengths.map((_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0));

/** Milliseconds of a call: the median of 5 rounds of `calls` each. */
async function time(call: () => void, calls: number): Promise<number> {
  for (let i = 0; i < 3; i++) call();
  const rounds: number[] = [];
  for (let r = 0; r < 5; r++) {
    await settle("cuda");
    const begun = performance.now();
    for (let i = 0; i < calls; i++) call();
    await settle("cuda");
    rounds.push((performance.now() - begun) / calls);
  }
  return rounds.sort((a, b) => a - b)[2]!;
}

/** Pairs of a query and a key that it sees, over all sequences. */
function pairs(s: Shape): number {
  const keys = s.keys ?? s.rows;
  let sum = 0;
  for (const [n, length] of s.rows.entries())
    for (let i = 0; i < length; i++) {
      const last = (s.causal ?? true) ? keys[n]! - length + i : keys[n]! - 1;
      sum += s.window ? Math.min(s.window, last + 1) : last + 1;
    }
  return sum;
}

async function bench(s: Shape): Promise<void> {
  const { heads, kvHeads, dim, rows, dtype = "bfloat16", keys = rows } = s;
  const total = (list: number[]): number => list.reduce((a, b) => a + b, 0);
  const [qRows, kRows] = [total(rows), total(keys)];
  const [width, kvWidth] = [heads * dim, kvHeads * dim];
  const all: Tensor[] = [];
  const made = (n: number, cols: number): Tensor => {
    const t = random([n, cols], dtype);
    all.push(t);
    return t;
  };
  /** q, k and v, or their gradients. */
  const three = (): [Tensor, Tensor, Tensor] => {
    if (!s.beside) return [made(qRows, width), made(kRows, kvWidth), made(kRows, kvWidth)];
    const one = made(qRows, width + 2 * kvWidth);
    const parts = [width, width + kvWidth].map((at) => view(one, [one.size - at], at));
    all.push(...parts);
    return [one, parts[0]!, parts[1]!];
  };
  const [q, k, v] = three();
  const [dq, dk, dv] = three();
  const [o, dO] = [made(qRows, width), made(qRows, width)];
  const lse = empty([qRows, heads], "float32", "cuda");
  const ranges = [int32(begins(rows)), int32(rows), int32(begins(keys)), int32(keys)];
  const [qb, ql, kb, kl] = ranges.map((t) => t.handle) as [number, number, number, number];
  const [qs, ks] = s.beside ? [width + 2 * kvWidth, width + 2 * kvWidth] : [width, kvWidth];
  const ints = [
    rows.length,
    qRows,
    kRows,
    heads,
    kvHeads,
    dim,
    qs,
    ks,
    ks,
    width,
    (s.causal ?? true) ? 1 : 0,
    s.window ?? 0,
    1,
  ] as const;
  const scale = 1 / Math.sqrt(dim);
  const forward = (): void =>
    attention(q.handle, k.handle, v.handle, qb, ql, kb, kl, o.handle, lse.handle, ...ints, scale, s.dropout ?? 0);
  const backward = (): void =>
    attentionBackward(
      q.handle, k.handle, v.handle, o.handle, lse.handle, dO.handle, qb, ql, kb, kl, dq.handle, dk.handle, dv.handle, ...ints, scale, s.dropout ?? 0,
    ); // biome-ignore format: one line
  const product = 2 * pairs(s) * heads * dim; // FLOP of one product
  const line = (what: string, ms: number, products: number): string =>
    `${what} ${ms.toFixed(3)} ms ${((products * product) / ms / 1e9).toFixed(0)} TFLOP/s`;
  const first = await time(forward, qRows === rows.length ? 200 : 10);
  let text = `${s.name.padEnd(28)} ${line("forward", first, 2)}`;
  if (s.forwardOnly)
    text += `, ${((2 * kRows * kvWidth * (dtype === "float32" ? 4 : 2)) / first / 1e6).toFixed(0)} GB/s of k and v`;
  else text += `, ${line("backward", await time(backward, 10), 5)}`;
  console.log(text);
  for (const t of [...all.reverse(), lse, ...ranges]) t.dispose();
}

openDevice("cuda");
for (const s of SHAPES) if (s.name.includes(process.argv[2] ?? "")) await bench(s);
