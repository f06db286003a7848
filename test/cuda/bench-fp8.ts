// Times FP8 weights on the GPU in the shapes of Llama-3-8B, beside bfloat16 products of the same shapes: codes by codes in both directions, rounding rows,
// transposing codes, decoding. No test: node dist/test/cuda/bench-fp8.js [--rows 8192]
import { parseArgs } from "node:util";
import * as calls from "../../src/tensor/calls.js";
import { type Handle, openDevice } from "../../src/tensor/native.js";
import { BF16, copies, drop, F32, line, memory, pick, random, release, time, UINT8, WEIGHTS } from "./bench.js";

const { values: options } = parseArgs({ options: { rows: { type: "string", default: "8192" } } });
const rows = Number(options.rows);

interface Weight {
  q: Handle;
  scale: Handle;
}
function quantized(out: number, into: number): Weight {
  const x = random(out * into, 0.02);
  const w = { q: memory(out * into, UINT8), scale: memory(out * 4, F32) };
  calls.quantizeFp8(x, w.q, w.scale, out, into);
  drop(x);
  return w;
}

interface Options {
  transposed: 0 | 1;
  roundA: 0 | 1;
  beta?: 0 | 1;
}

function timed(m: number, out: number, into: number, { transposed, roundA, beta = 0 }: Options): number {
  const [k, n] = transposed ? [into, out] : [out, into];
  const w = copies(out * into, () => quantized(out, into));
  const a = copies(m * k * 2, () => random(m * k));
  const y = random(m * n);
  const ms = time((i) => {
    const { q, scale } = pick(w, i);
    calls.gemmFp8(pick(a, i), q, scale, 0, 0, y, m, out, into, transposed, k, n, roundA, 0, 1, beta);
  });
  release();
  return ms;
}

function dense(m: number, out: number, into: number, transposed: 0 | 1): number {
  const [k, n] = transposed ? [into, out] : [out, into];
  const [a, w] = [copies(m * k * 2, () => random(m * k)), copies(out * into * 2, () => random(out * into, 0.02))];
  const y = memory(m * n * 2, BF16);
  const ms = time((i) => calls.gemm(pick(a, i), pick(w, i), 0, y, m, n, k, 0, transposed, k, into, n, 0, 1, 0));
  release();
  return ms;
}

console.log(`${openDevice().name}, ${rows} rows`);
for (const k of [576, 4096, 14_336]) {
  const m = Math.floor(2 ** 27 / k);
  const x = copies(m * k * 2, () => random(m * k));
  const [y, q, scale] = [memory(m * k * 2, BF16), memory(m * k, UINT8), memory(m * 4, F32)];
  line(
    `copy ${m}x${k} bfloat16`,
    time((i) => calls.copy(pick(x, i), y, m * k)),
    { bytes: 4 * m * k },
  );
  line(
    `round ${m}x${k} bfloat16`,
    time((i) => calls.quantizeFp8(pick(x, i), q, scale, m, k)),
    { bytes: 3 * m * k },
  );
  line(
    `restore ${m}x${k} to bfloat16`,
    time(() => calls.dequantizeFp8(q, scale, y, m, k)),
    { bytes: 3 * m * k },
  );
  release();
  // Sixteen outputs: nearly all of it is rounding, with a scale a column.
  line(`round ${m}x${k} with column scales, and its product`, timed(m, k, 16, { transposed: 0, roundA: 1 }), {
    bytes: 4 * m * k,
  });
}
// Sixty-four rows: nearly all of it is transposing the weight, and reading it once more.
for (const [name, out, into] of WEIGHTS)
  line(`transpose ${name}, and a product of 64 rows`, timed(64, out, into, { transposed: 0, roundA: 1 }), {
    bytes: 3 * out * into,
  });
for (const [name, out, into] of WEIGHTS) {
  const flops = 2 * rows * out * into;
  for (const transposed of [1, 0] as const) {
    const way = transposed ? "" : ", backward";
    line(`${name}${way} bfloat16`, dense(rows, out, into, transposed), { flops });
    line(`${name}${way} FP8`, timed(rows, out, into, { transposed, roundA: 1 }), { flops });
    line(`${name}${way} FP8, added`, timed(rows, out, into, { transposed, roundA: 1, beta: 1 }), { flops });
    line(`${name}${way} FP8, inputs kept`, timed(rows, out, into, { transposed, roundA: 0 }), { flops });
  }
}
for (const m of [1, 2, 4, 8])
  for (const [name, out, into] of WEIGHTS)
    line(`decode ${name}, ${m} rows`, timed(m, out, into, { transposed: 1, roundA: 0 }), { bytes: out * into });
