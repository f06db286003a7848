import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { checkGradient, close, f32, fails, i32, Numbers, out, read } from "./ops-harness.js";

type Vector = ArrayLike<number>;

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly dim: number;
  readonly qBegin: number[];
  readonly qLen: number[];
  readonly kBegin: number[];
  readonly kLen: number[];
  readonly causal: boolean;
  readonly window: number;
  readonly dropout?: number;
  /** Unused elements at the end of each row of q, k, v and o. */
  readonly gap?: number;
  /** Rows past the last sequence. */
  readonly spare?: number;
}

interface Sizes {
  readonly qRows: number;
  readonly kRows: number;
  readonly qStride: number;
  readonly kStride: number;
  readonly vStride: number;
  readonly oStride: number;
  readonly scale: number;
}

function sizes(s: Shape): Sizes {
  const end = (begin: number[], len: number[]): number => Math.max(...begin.map((b, i) => b + len[i]!));
  const gap = s.gap ?? 0;
  return {
    qRows: end(s.qBegin, s.qLen) + (s.spare ?? 0),
    kRows: end(s.kBegin, s.kLen) + (s.spare ?? 0),
    qStride: s.heads * s.dim + gap,
    kStride: s.kvHeads * s.dim + 2 * gap,
    vStride: s.kvHeads * s.dim + gap,
    oStride: s.heads * s.dim + 3 * gap,
    scale: Math.fround(1 / Math.sqrt(s.dim)),
  };
}

const SEED = -12345;

function mix(h: number): number {
  let x = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** What the probability of a key is multiplied by, as native/ops.def says it. */
function gain(dropout: number, row: number, heads: number, head: number, key: number): number {
  if (dropout === 0) return 1;
  const ofRow = mix((SEED + row * heads + head) | 0) | 1;
  const ofKey = mix(SEED ^ Math.imul(key + 1, 0x9e3779b1)) | 1;
  return Math.imul(ofRow, ofKey) >>> 0 < Math.floor(Math.fround(dropout) * 2 ** 32) ? 0 : 1 / (1 - dropout);
}

/** Plain attention in float64. */
function reference(s: Shape, q: Vector, k: Vector, v: Vector): { o: Float64Array; lse: Float64Array } {
  const z = sizes(s);
  const o = new Float64Array(z.qRows * z.oStride);
  const lse = new Float64Array(z.qRows * s.heads).fill(-Infinity);
  for (const n of s.qBegin.keys()) {
    for (let i = 0; i < s.qLen[n]!; i++) {
      const row = s.qBegin[n]! + i;
      const position = s.kLen[n]! - s.qLen[n]! + i;
      const last = s.causal ? position : s.kLen[n]! - 1;
      const first = s.window > 0 ? Math.max(0, last - s.window + 1) : 0;
      for (let h = 0; h < s.heads; h++) {
        const kv = Math.floor(h / (s.heads / s.kvHeads));
        const scores: number[] = [];
        for (let j = first; j <= last; j++) {
          let dot = 0;
          const key = (s.kBegin[n]! + j) * z.kStride + kv * s.dim;
          for (let d = 0; d < s.dim; d++) dot += q[row * z.qStride + h * s.dim + d]! * k[key + d]!;
          scores.push(dot * z.scale);
        }
        if (scores.length === 0) continue;
        const max = Math.max(...scores);
        const sum = scores.reduce((t, x) => t + Math.exp(x - max), 0);
        lse[row * s.heads + h] = max + Math.log(sum);
        for (const [j, x] of scores.entries()) {
          const p = (Math.exp(x - max) / sum) * gain(s.dropout ?? 0, row, s.heads, h, first + j);
          const value = (s.kBegin[n]! + first + j) * z.vStride + kv * s.dim;
          for (let d = 0; d < s.dim; d++) o[row * z.oStride + h * s.dim + d]! += p * v[value + d]!;
        }
      }
    }
  }
  return { o, lse };
}

/** The columns that belong to heads, without the gaps between rows. */
function columns(x: Vector, rows: number, stride: number, width: number): number[] {
  const y: number[] = [];
  for (let r = 0; r < rows; r++) for (let c = 0; c < width; c++) y.push(x[r * stride + c]!);
  return y;
}

async function check(s: Shape, { backward = true, samples = 24 } = {}): Promise<void> {
  const what = JSON.stringify(s);
  const z = sizes(s);
  const r = new Numbers(s.heads * 31 + s.dim);
  const [q, k, v] = [
    r.array(z.qRows * z.qStride, -2, 2),
    r.array(z.kRows * z.kStride, -2, 2),
    r.array(z.kRows * z.vStride),
  ];
  const [hq, hk, hv] = [f32(q), f32(k), f32(v)];
  const ranges = [i32(s.qBegin), i32(s.qLen), i32(s.kBegin), i32(s.kLen)] as const;
  const [o, lse] = [out(z.qRows * z.oStride), out(z.qRows * s.heads)];
  const ints = [
    s.qBegin.length,
    z.qRows,
    z.kRows,
    s.heads,
    s.kvHeads,
    s.dim,
    z.qStride,
    z.kStride,
    z.vStride,
    z.oStride,
    s.causal ? 1 : 0,
    s.window,
    SEED,
    z.scale,
    s.dropout ?? 0,
  ] as const;
  op.attention(hq, hk, hv, ...ranges, o, lse, ...ints);
  const expected = reference(s, q, k, v);
  const width = s.heads * s.dim;
  close(
    columns(await read(o, z.qRows * z.oStride), z.qRows, z.oStride, width),
    columns(expected.o, z.qRows, z.oStride, width),
    2e-6,
    what,
  );
  close(await read(lse, z.qRows * s.heads), expected.lse, 1e-6, `lse of ${what}`);
  if (!backward) return;
  const d = r.array(z.qRows * z.oStride);
  const [dq, dk, dv] = [out(q.length), out(k.length), out(v.length)];
  op.attentionBackward(hq, hk, hv, o, lse, f32(d), ...ranges, dq, dk, dv, ...ints);
  const kvWidth = s.kvHeads * s.dim;
  const parts = [
    ["dq", q, dq, z.qRows, z.qStride, width],
    ["dk", k, dk, z.kRows, z.kStride, kvWidth],
    ["dv", v, dv, z.kRows, z.vStride, kvWidth],
  ] as const;
  for (const [name, x, handle, rows, stride, w] of parts) {
    const gradient = await read(handle, x.length);
    // Gaps stay as they were; every element of a head is written.
    for (let i = 0; i < gradient.length; i++) {
      const inside = i % stride < w && Math.floor(i / stride) < rows;
      assert.equal(Number.isNaN(gradient[i]!), !inside, `${name}[${i}] of ${what}`);
    }
    const f = (at: Float64Array): number[] => {
      const result = reference(s, name === "dq" ? at : q, name === "dk" ? at : k, name === "dv" ? at : v);
      return columns(result.o, z.qRows, z.oStride, width);
    };
    // Elements of gaps have a gradient of zero in the difference and NaN here: both are zero for the comparison.
    const plain = gradient.map((g) => (Number.isNaN(g) ? 0 : g));
    checkGradient(f, x, columns(d, z.qRows, z.oStride, width), plain, {
      tolerance: 2e-5,
      samples,
      what: `${name} of ${what}`,
    });
  }
}

const one = (length: number): Pick<Shape, "qBegin" | "qLen" | "kBegin" | "kLen"> => ({
  qBegin: [0],
  qLen: [length],
  kBegin: [0],
  kLen: [length],
});

test("attention: head sizes, grouped heads, strides", async () => {
  for (const [heads, kvHeads, dim, length] of [
    [1, 1, 1, 5],
    [2, 1, 3, 9],
    [4, 2, 16, 33],
    [3, 3, 20, 64],
    [6, 2, 64, 65],
    [2, 1, 100, 70],
    [1, 1, 256, 40],
  ] as const) {
    for (const causal of [true, false]) {
      await check({ heads, kvHeads, dim, ...one(length), causal, window: 0, gap: causal ? 0 : 5 }, { samples: 12 });
    }
  }
});

test("attention: several packed sequences, spare rows, windows, more keys than queries", async () => {
  const packed = { qBegin: [3, 40, 0], qLen: [30, 17, 3], kBegin: [60, 0, 25], kLen: [30, 17, 12] };
  for (const causal of [true, false]) {
    for (const window of [0, 1, 7])
      await check({ heads: 4, kvHeads: 2, dim: 24, ...packed, causal, window, gap: 3, spare: 4 });
  }
  // 20 sequences: enough for a task each
  const many = Array.from({ length: 20 }, (_, i) => i);
  await check({
    heads: 4,
    kvHeads: 2,
    dim: 8,
    qBegin: many.map((i) => i * 7),
    qLen: many.map((i) => 1 + (i % 7)),
    kBegin: many.map((i) => i * 9),
    kLen: many.map((i) => 1 + (i % 7) + (i % 3)),
    causal: true,
    window: 0,
  });
});

test("attention over several blocks of queries and keys", async () => {
  await check({ heads: 2, kvHeads: 1, dim: 32, ...one(200), causal: true, window: 0 }, { samples: 6 });
  await check({ heads: 1, kvHeads: 1, dim: 16, ...one(200), causal: true, window: 70 }, { samples: 6 });
  await check({ heads: 1, kvHeads: 1, dim: 16, ...one(150), causal: false, window: 0 }, { samples: 6 });
});

test("attention with dropout: some probabilities are gone, the same in both passes", async () => {
  const base = { heads: 4, kvHeads: 2, dim: 24, causal: true, window: 0, dropout: 0.3 };
  await check({ ...base, ...one(90) });
  await check({ ...base, ...one(3) });
  await check({ ...base, ...one(70), window: 20, causal: false, kvHeads: 4, dropout: 0.75 });
  const packed = { qBegin: [3, 40, 0], qLen: [30, 17, 3], kBegin: [60, 0, 25], kLen: [30, 17, 12] };
  await check({ ...base, ...packed, gap: 3, spare: 4 });
  const many = Array.from({ length: 20 }, (_, i) => i);
  const rows = { qBegin: many.map((i) => i * 7), qLen: many.map((i) => 1 + (i % 7)) };
  await check({ ...base, ...rows, kBegin: rows.qBegin, kLen: rows.qLen });
  // The share that is dropped is what was asked for, over rows and over keys.
  for (const p of [0.1, 0.5]) {
    const dropped = (row: number, key: number): number => (gain(p, row, 8, 3, key) === 0 ? 1 : 0);
    for (const swap of [false, true]) {
      let all = 0;
      for (let a = 0; a < 200; a++) {
        let count = 0;
        for (let b = 0; b < 500; b++) count += swap ? dropped(b, a) : dropped(a, b);
        assert.ok(Math.abs(count / 500 - p) < 5 * Math.sqrt((p * (1 - p)) / 500), `${count} of 500`);
        all += count;
      }
      assert.ok(Math.abs(all / 100000 - p) < 5 * Math.sqrt((p * (1 - p)) / 100000), `${all} of 100,000`);
    }
  }
});

test("decoding: few queries over many keys", async () => {
  for (const qLen of [1, 2, 4]) {
    for (const kLen of [qLen, 37, 512, 1300]) {
      for (const window of [0, 100, 600]) {
        const s = {
          heads: 6,
          kvHeads: 2,
          dim: 64,
          qBegin: [0],
          qLen: [qLen],
          kBegin: [2],
          kLen: [kLen],
          causal: true,
          window,
          gap: 1,
        };
        await check(s, { backward: false });
        await check({ ...s, dim: 20, heads: 2 }, { backward: false });
      }
    }
  }
  // The gradient of a decoding call agrees too.
  await check({
    heads: 4,
    kvHeads: 2,
    dim: 16,
    qBegin: [0],
    qLen: [3],
    kBegin: [0],
    kLen: [600],
    causal: true,
    window: 0,
  });
});

test("queries that see no key give zero, and no gradient", async () => {
  // More queries than keys: the first ones stand before the first key.
  await check({
    heads: 2,
    kvHeads: 1,
    dim: 8,
    qBegin: [0],
    qLen: [9],
    kBegin: [0],
    kLen: [5],
    causal: true,
    window: 0,
  });
  await check({
    heads: 2,
    kvHeads: 1,
    dim: 8,
    qBegin: [0, 3],
    qLen: [3, 4],
    kBegin: [0, 0],
    kLen: [0, 4],
    causal: true,
    window: 0,
  });
});

test("large scores do not overflow", async () => {
  const n = 70;
  const s: Shape = { heads: 1, kvHeads: 1, dim: 4, ...one(n), causal: true, window: 0 };
  const r = new Numbers(5);
  const [q, k, v] = [r.array(n * 4, -60, 60), r.array(n * 4, -60, 60), r.array(n * 4)];
  const [o, lse] = [out(n * 4), out(n)];
  const ranges = [i32([0]), i32([n]), i32([0]), i32([n])] as const;
  op.attention(f32(q), f32(k), f32(v), ...ranges, o, lse, 1, n, n, 1, 1, 4, 4, 4, 4, 4, 1, 0, 0, 0.5, 0);
  close(await read(o, n * 4), reference(s, q, k, v).o, 2e-3); // scores of several thousand: their float32 rounding shows
});

test("NaN in a key reaches every query that sees it, and no other", async () => {
  for (const [length, payload] of [
    [70, 0x7fc00000],
    [70, 0x7fc00001],
    [2, 0x7fc00001],
  ] as const) {
    const [at, dim] = [length >> 1, 4];
    const k = new Float32Array(length * dim).fill(1);
    new Uint32Array(k.buffer)[at * dim] = payload;
    const [o, lse] = [out(length * dim), out(length)];
    const ranges = [i32([0]), i32([length]), i32([0]), i32([length])] as const;
    const ones = f32(new Float32Array(length * dim).fill(1));
    op.attention(
      ones,
      f32(k),
      ones,
      ...ranges,
      o,
      lse,
      1,
      length,
      length,
      1,
      1,
      dim,
      dim,
      dim,
      dim,
      dim,
      1,
      0,
      0,
      0.5,
      0,
    );
    const result = await read(o, length * dim);
    for (let i = 0; i < length; i++) assert.equal(Number.isNaN(result[i * dim]!), i >= at, `query ${i} of ${length}`);
  }
});

test("attention refuses sequences and strides that do not fit", async () => {
  const x = f32(new Float32Array(64));
  const [o, lse] = [out(64), out(16)];
  const call =
    (
      qBegin: number[],
      qLen: number[],
      kLen: number[],
      ints: Partial<Record<"dim" | "kv" | "stride" | "dropout", number>> = {},
    ) =>
    () =>
      op.attention(
        x,
        x,
        x,
        i32(qBegin),
        i32(qLen),
        i32(qBegin),
        i32(kLen),
        o,
        lse,
        qBegin.length,
        8,
        8,
        2,
        ints.kv ?? 1,
        ints.dim ?? 4,
        ints.stride ?? 8,
        8,
        8,
        8,
        1,
        0,
        0,
        1,
        ints.dropout ?? 0,
      );
  await fails(call([0, 4], [4, 5], [4, 4]), /sequence 1: query rows 4\.\.9 are outside the 8 rows/);
  await fails(call([0, 3], [4, 4], [4, 4]), /sequence 1: query row 3 belongs to another sequence too/);
  await fails(call([0], [4], [9]), /sequence 0: key rows 0\.\.9 are outside the 8 rows/);
  await fails(call([-1], [4], [4]), /sequence 0: query rows -1\.\.3/);
  await fails(call([0], [4], [4], { kv: 3 }), /heads 2 is no multiple of kv_heads 3/);
  await fails(call([0], [4], [4], { dim: 300 }), /head_dim is 300, expected at most 256/);
  await fails(call([0], [4], [4], { dropout: 1 }), /dropout is 1, expected at least 0 and less than 1/);
  await fails(call([0], [4], [4], { stride: 7 }), /q_stride is 7/);
  await fails(call([0], [4], [4], { stride: 9 }), /q holds 64 elements, expected at least 71/);
});
