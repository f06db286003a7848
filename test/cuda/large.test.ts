// Tensors with more elements, and more bytes, than 32 bits count: rows of a small block are repeated until there are 350,208 of them, and what an op makes of the
// block's copies at the borders must be what it makes of the block alone. Needs 64 GiB of a GPU; the stand-in (TUNEBOOK_FAKE_CUDA=1) goes through it with few rows.
import assert from "node:assert/strict";
import { test } from "node:test";
import { backward, noGrad, randn, type Tensor, tensor } from "../../src/index.js";
import * as calls from "../../src/tensor/calls.js";
import { emptyHost, Transfer } from "../../src/tensor/host.js";
import { cudaFailure, openDevice } from "../../src/tensor/native.js";
import { gelu, swiglu } from "../../src/tensor/ops/activation.js";
import { attention, rope, type Segments } from "../../src/tensor/ops/attention.js";
import { addScaled, fill } from "../../src/tensor/ops/elementwise.js";
import { linearFrozen } from "../../src/tensor/ops/frozen.js";
import { cast } from "../../src/tensor/ops/layout.js";
import { embedding, linearCrossEntropy } from "../../src/tensor/ops/loss.js";
import { gemm } from "../../src/tensor/ops/matmul.js";
import { quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { addRmsNorm, rmsNorm } from "../../src/tensor/ops/norm.js";
import { seed } from "../../src/tensor/ops/random.js";
import { scope } from "../../src/tensor/scope.js";
import { empty, emptyLike, view } from "../../src/tensor/tensor.js";

const standIn = process.env.TUNEBOOK_FAKE_CUDA === "1";
const BLOCK = 128;
const BLOCKS = standIn ? 9 : 2736;
const ROWS = BLOCK * BLOCKS; // 350,208
const WIDE = standIn ? 112 : 14336; // 5.0e9 elements
const HIDDEN = standIn ? 64 : 4096; // 1.4e9 elements, 2.9e9 bytes

const missing = cudaFailure();
const room = missing === undefined ? (openDevice().memory ?? 0) : 0;
const skip =
  missing !== undefined
    ? `no CUDA device: ${missing}`
    : room < 64 * 2 ** 30 && !standIn
      ? `64 GiB of GPU memory are needed, there are ${Math.round(room / 2 ** 30)}`
      : false;

/** Blocks that are looked at: the first, those around the borders of 31 and 32 bits (elements and bytes), the last. */
function looked(cols: number): number[] {
  const borders = [30, 31, 32].flatMap((bits) => {
    const block = Math.floor(2 ** bits / cols / BLOCK);
    return [block, block + 1];
  });
  return [...new Set([0, ...borders.filter((b) => b < BLOCKS), BLOCKS - 1])];
}

const random = (rows: number, cols: number, size = 1): Tensor =>
  randn([rows, cols], { device: "cuda" }).mul(size).to("bfloat16");

/** A tensor of ROWS rows that repeats a block. */
function repeated(block: Tensor): Tensor {
  const cols = block.dim(1);
  const x = emptyLike(block, [ROWS, cols]);
  for (let b = 0; b < BLOCKS; b++) calls.copy(block.handle, view(x, block.shape, b * block.size).handle, block.size);
  return x;
}

interface Compared {
  what: string;
  /** Numbers of the blocks in `got`. */
  blocks: number[];
  got: Tensor[];
  expected: Tensor;
  tolerance: number;
}

/** Blocks of what came out of all rows, to be compared with what comes out of one block. */
function compared(what: string, large: Tensor, small: Tensor, tolerance = 0): Compared {
  const blocks = looked(large.dim(1));
  const got = blocks.map((b) => view(large, small.shape, b * small.size).to("float32"));
  return { what, blocks, got, expected: small.to("float32"), tolerance };
}

function large(name: string, make: () => Compared[]): void {
  test(name, { skip }, async () => {
    seed(1);
    const all = scope(() => noGrad(make));
    for (const { what, blocks, got, expected, tolerance } of all) {
      const wanted = await expected.data();
      const most = wanted.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      assert.ok(most > 0, `${what}: nothing to compare`);
      for (const [i, part] of got.entries()) {
        let worst = 0;
        (await part.data()).forEach((v, j) => {
          const error = Math.abs(v - wanted[j]!);
          if (!(error <= worst)) worst = error;
        });
        assert.ok(worst <= tolerance * most, `${what}: block ${blocks[i]} of ${BLOCKS} is off by ${worst} of ${most}`);
      }
      for (const t of [...got, expected]) t.dispose();
    }
  });
}

// Products of another number of rows may be summed in another order; 16 bits are rounded once.
const ROUNDED = 2 ** -7;

large("SwiGLU and its gradient", () => {
  const [gate, up, dy] = [random(BLOCK, WIDE), random(BLOCK, WIDE), random(BLOCK, WIDE)];
  const backward = (g: Tensor, u: Tensor, d: Tensor, rows: number): void =>
    calls.swigluBackward(g.handle, u.handle, d.handle, g.handle, u.handle, 0, rows, WIDE, WIDE, WIDE, WIDE, WIDE, WIDE);
  const [gates, ups] = [repeated(gate), repeated(up)];
  const y = swiglu(gates, ups);
  const first = compared("swiglu", y, swiglu(gate, up));
  y.dispose();
  backward(gates, ups, repeated(dy), ROWS);
  backward(gate, up, dy, BLOCK);
  return [first, compared("of gate", gates, gate), compared("of up", ups, up)];
});

large("norms and their gradients", () => {
  const [x, stream, dy] = [random(BLOCK, HIDDEN), random(BLOCK, HIDDEN), random(BLOCK, HIDDEN)];
  const weight = randn([HIDDEN], { device: "cuda" });
  const backward = (dy: Tensor, h: Tensor, extra: Tensor, rows: number): Tensor => {
    const [dx, rstd] = [emptyLike(h), fill(empty([rows], "float32", "cuda"), 0.7)];
    calls.rmsNormBackward(dy.handle, h.handle, weight.handle, rstd.handle, extra.handle, dx.handle, 0, rows, HIDDEN);
    return dx;
  };
  const [xs, streams] = [repeated(x), repeated(stream)];
  const [h, y] = addRmsNorm(x, stream, weight, 1e-5);
  const [hs, ys] = addRmsNorm(xs, streams, weight, 1e-5);
  const wide = random(BLOCK, WIDE);
  const ones = fill(empty([WIDE], "float32", "cuda"), 1);
  return [
    compared("the sum", hs, h),
    compared("its norm", ys, y, ROUNDED), // rows are divided among threads by their number
    compared("the gradient", backward(repeated(dy), hs, streams, ROWS), backward(dy, h, stream, BLOCK), ROUNDED),
    compared("a wide norm", rmsNorm(repeated(wide), ones, 1e-5), rmsNorm(wide, ones, 1e-5), ROUNDED),
  ];
});

large("products", () => {
  const inner = 64;
  const x = random(BLOCK, inner);
  const w = random(WIDE, inner);
  const back = random(inner, WIDE);
  const product = (a: Tensor, rows: number): Tensor => {
    const y = emptyLike(a, [rows, WIDE]);
    gemm(a, w, y, rows, WIDE, inner, { transB: true });
    return y;
  };
  const [ys, y] = [product(repeated(x), ROWS), product(x, BLOCK)];
  const narrow = (a: Tensor, rows: number): Tensor => {
    const z = emptyLike(a, [rows, inner]);
    gemm(a, back, z, rows, inner, WIDE, { transB: true });
    return z;
  };
  const update = (a: Tensor, rows: number): Tensor => {
    const z = emptyLike(a, [rows, WIDE]);
    const b = tensor(
      Float32Array.from({ length: WIDE * 32 }, (_, i) => Math.sin(i)),
      { shape: [WIDE, 32], device: "cuda" },
    );
    const thin = view(a, [rows, 32]);
    gemm(thin, b, z, rows, WIDE, 32, { transB: true, alpha: 0.5 });
    return z;
  };
  // Of a block's copies the sum over rows is so many times the block's.
  const summed = (a: Tensor, b: Tensor, rows: number, alpha: number): Tensor => {
    const z = empty([WIDE, inner], "float32", "cuda");
    gemm(a, b, z, WIDE, inner, rows, { transA: true, alpha });
    return z;
  };
  const all = [
    compared("x by a wide weight", ys, y, ROUNDED),
    compared("wide rows by a weight", narrow(ys, ROWS), narrow(y, BLOCK), ROUNDED),
  ];
  const [got, expected] = [summed(ys, repeated(x), ROWS, 1 / BLOCKS), summed(y, x, BLOCK, 1)];
  all.push({ what: "sums over all rows", blocks: [0], got: [got], expected, tolerance: 1e-3 });
  ys.dispose();
  const thin = random(BLOCK, 32);
  return [...all, compared("a low-rank update", update(repeated(thin), ROWS), update(thin, BLOCK))];
});

large("products with an NF4 weight", () => {
  const w = quantizeNf4(random(WIDE, 64), { doubleQuant: true });
  const x = random(BLOCK, 64);
  const y = compared(
    "NF4",
    linearFrozen(repeated(x), w, undefined, "bfloat16"),
    linearFrozen(x, w, undefined, "bfloat16"),
    ROUNDED,
  );
  w.dispose();
  return [y];
});

large("rotary embedding, sums, conversions, gathering", () => {
  const x = random(BLOCK, HIDDEN);
  const headDim = standIn ? 16 : 128;
  const heads = HIDDEN / headDim;
  const position = Int32Array.from({ length: ROWS }, (_, i) => (i % BLOCK) * 7);
  const positions = tensor(position, { device: "cuda" });
  const [cos, sin] = [
    randn([BLOCK * 7, headDim / 2], { device: "cuda" }),
    randn([BLOCK * 7, headDim / 2], { device: "cuda" }),
  ];
  const turned = (t: Tensor): Tensor => rope(t, view(positions, [t.dim(0)]), { cos, sin }, { heads, headDim });
  const xs = repeated(x);
  const all = [compared("rope", turned(xs), turned(x)), compared("float32", cast(xs, "float32"), cast(x, "float32"))];
  const away = emptyHost(xs.shape, "bfloat16");
  const backAgain = emptyLike(xs);
  new Transfer(xs, away).wait();
  new Transfer(away, backAgain).wait();
  all.push(compared("to host memory and back", backAgain, x));
  backAgain.dispose();
  addScaled(xs, xs, 0.5);
  addScaled(x, x, 0.5);
  all.push(compared("y += x / 2", xs, x));
  const table = random(BLOCK, HIDDEN);
  const ids = tensor(
    position.map((p) => p / 7),
    { device: "cuda" },
  );
  all.push(compared("embedding", embedding(table, ids), table));
  return all;
});

large("the head's loss", () => {
  const [dim, vocab] = [64, 512];
  const x = random(BLOCK, dim);
  const w = random(vocab, dim, 0.1);
  const labels = tensor(
    Int32Array.from({ length: ROWS }, (_, i) => ((i % BLOCK) * 5) % vocab),
    { device: "cuda" },
  );
  const losses = (t: Tensor): Tensor => {
    const rows = t.dim(0);
    return linearCrossEntropy(t, w, view(labels, [rows]), { gradients: false }).rows.reshape(rows, 1);
  };
  return [compared("losses", losses(repeated(x)), losses(x), ROUNDED)];
});

const int32 = (...values: number[]): Tensor => tensor(Int32Array.from(values), { device: "cuda" });

large("attention over many short sequences", () => {
  const [heads, kvHeads, headDim] = standIn ? [4, 2, 16] : [32, 8, 128];
  const [q, k, v] = [
    random(BLOCK, heads * headDim),
    random(BLOCK, kvHeads * headDim),
    random(BLOCK, kvHeads * headDim),
  ];
  const segments = (count: number): Segments => {
    const begin = int32(...Array.from({ length: count }, (_, i) => i * BLOCK));
    const length = int32(...Array.from({ length: count }, () => BLOCK));
    return { count, queryBegin: begin, queryLength: length, keyBegin: begin, keyLength: length };
  };
  const options = { heads, kvHeads, headDim };
  const large = attention(repeated(q), repeated(k), repeated(v), segments(BLOCKS), options);
  return [compared("o", large, attention(q, k, v, segments(1), options))];
});

test("attention over one sequence of all rows, and its gradient", { skip }, async () => {
  // Keys that are repeated whole change no average: the last query of each copy sees what the block's last query sees. Only those have a gradient here; the gradients of a
  // key's copies sum up to that of the block, times the copies.
  seed(2);
  const [heads, kvHeads, headDim] = standIn ? [4, 2, 16] : [4, 1, 128];
  const pass = (copies: number): { o: Tensor; dq: Tensor; dv: Tensor; dk: Tensor } =>
    scope(() => {
      const rows = copies * BLOCK;
      const one = int32(0);
      const all = int32(rows);
      const again = (t: Tensor): Tensor => (copies === 1 ? t : repeated(t));
      const [q, k, v] = blocks.map(again) as [Tensor, Tensor, Tensor];
      for (const t of [q, k, v]) Object.assign(t, { requiresGrad: true, leaf: true });
      const segments = { count: 1, queryBegin: one, queryLength: all, keyBegin: one, keyLength: all };
      const o = attention(q, k, v, segments, { heads, kvHeads, headDim });
      const last = (t: Tensor): Tensor => {
        const [n, cols] = [copies, t.dim(1)];
        const picked = emptyLike(t, [n, cols]);
        calls.copy2d(t.handle, picked.handle, n, cols, (BLOCK - 1) * cols, BLOCK * cols, 0, cols, 0);
        return picked;
      };
      const kept = last(o).to("float32");
      const dO = fill(emptyLike(o), 0);
      calls.copy2d(
        again(upstream).handle,
        dO.handle,
        copies,
        o.dim(1),
        (BLOCK - 1) * o.dim(1),
        BLOCK * o.dim(1),
        (BLOCK - 1) * o.dim(1),
        BLOCK * o.dim(1),
        0,
      );
      backward(o, dO);
      const folded = (t: Tensor): Tensor =>
        t
          .reshape(copies, BLOCK * t.dim(1))
          .sum(0)
          .mul(1 / copies);
      return noGrad(() => ({
        o: kept,
        dq: last(q.grad!).to("float32"),
        dk: folded(k.grad!.to("float32")),
        dv: folded(v.grad!.to("float32")),
      }));
    });
  const blocks = [
    random(BLOCK, heads * headDim, 0.3),
    random(BLOCK, kvHeads * headDim),
    random(BLOCK, kvHeads * headDim),
  ];
  const upstream = random(BLOCK, heads * headDim);
  const [small, large] = [pass(1), pass(BLOCKS)];
  for (const name of ["o", "dq", "dk", "dv"] as const) {
    const [wanted, got] = [await small[name].data(), await large[name].data()];
    const most = wanted.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const worst = got.reduce((m, x, i) => Math.max(m, Math.abs(x - wanted[i % wanted.length]!)), 0);
    assert.ok(most > 0 && worst < 0.03 * most, `${name}: off by ${worst} of ${most}`);
  }
  for (const t of [...Object.values(small), ...Object.values(large), ...blocks, upstream]) t.dispose();
});

test("an op that counts elements in 32 bits refuses more of them", { skip }, () => {
  if (standIn) return; // too much memory
  scope(() => noGrad(() => assert.throws(() => gelu(empty([ROWS, WIDE], "bfloat16", "cuda"), "gelu"), RangeError)));
});
