// Times products and 4-bit weights on the GPU in the shapes of Llama-3-8B, through the raw calls: operands are random, and as many of each are used in turn
// as leave the second-level cache nothing to keep. No test: node dist/test/cuda/bench-gemm.js [--rows 8192] [--only text]
import { parseArgs } from "node:util";
import * as calls from "../../src/tensor/calls.js";
import { alloc, free, type Handle, openDevice } from "../../src/tensor/native.js";
import { BF16, copies, drop, F32, INT32, line, memory, pick, random, release, time, UINT8, WEIGHTS } from "./bench.js";

const { values: options } = parseArgs({
  options: { rows: { type: "string", default: "8192" }, only: { type: "string", default: "" } },
});
const rows = Number(options.rows);

interface Weight {
  q: Handle;
  absmax: Handle;
  absmax2: Handle;
  offset: Handle;
}
/** A doubly quantised NF4 weight of n elements. */
function quantized(n: number): Weight {
  const blocks = n / 64;
  const x = random(n, 0.02);
  const plain = alloc(blocks * 4, F32, 1);
  const w = {
    q: memory(n / 2, UINT8),
    absmax: memory(blocks, UINT8),
    absmax2: memory(Math.ceil(blocks / 256) * 4, F32),
    offset: memory(4, F32),
  };
  calls.quantizeNf4(x, w.q, plain, n, 64, 0);
  calls.quantizeAbsmax(plain, w.absmax, w.absmax2, w.offset, blocks);
  free(plain);
  drop(x);
  return w;
}

const asked = (name: string): boolean => name.includes(options.only);

function product(name: string, m: number, n: number, k: number, ta: number, tb: number, y32 = false): void {
  if (!asked(name)) return;
  const a = copies(m * k * 2, () => random(m * k));
  const b = copies(n * k * 2, () => random(n * k, 0.02));
  const y = memory(m * n * (y32 ? 4 : 2), y32 ? F32 : BF16);
  if (y32) calls.fill(y, m * n, 0);
  const [lda, ldb] = [ta ? m : k, tb ? k : n];
  const call = (i: number): void =>
    calls.gemm(pick(a, i), pick(b, i), 0, y, m, n, k, ta, tb, lda, ldb, n, 0, 1, y32 ? 1 : 0);
  line(`${name} ${m}x${n}x${k}${ta ? " a^T" : ""}${tb ? " b^T" : ""}`, time(call), { flops: 2 * m * n * k });
  release();
}

function quantizedProduct(name: string, m: number, out: number, into: number, transposed: number): void {
  if (!asked(name)) return;
  const [k, n] = transposed ? [into, out] : [out, into];
  const bytes = out * into * (0.5 + 1 / 64);
  const w = copies(bytes, () => quantized(out * into));
  const a = random(m * k);
  const y = memory(m * n * 2, BF16);
  const call = (i: number): void => {
    const v = pick(w, i);
    calls.gemmNf4(a, v.q, v.absmax, v.absmax2, v.offset, 0, y, m, out, into, transposed, 64, k, n, 0, 1, 1, 0);
  };
  const label = `${name} NF4 ${m} rows, ${out}x${into}${transposed ? "" : ", backward"}`;
  line(label, time(call), m <= 64 ? { bytes } : { flops: 2 * m * n * k });
  release();
}

console.log(`${openDevice().name}, ${rows} rows`);
{
  const n = 2 ** 28;
  const [x, y] = [memory(4 * n, F32), memory(4 * n, F32)];
  calls.fill(x, n, 1);
  if (asked("copy"))
    line(
      "copy of 1 GiB",
      time(() => calls.copy(x, y, n)),
      { bytes: 8 * n },
    );
  release();
}
product("square", 8192, 8192, 8192, 0, 1);
for (const [name, out, into] of WEIGHTS) {
  product(name, rows, out, into, 0, 1);
  product(`${name}, backward`, rows, into, out, 0, 0);
  quantizedProduct(name, rows, out, into, 1);
  quantizedProduct(name, rows, out, into, 0);
  product(`${name}, x A^T`, rows, 16, into, 0, 1);
  product(`${name}, h B^T`, rows, out, 16, 0, 1);
  product(`${name}, dA`, 16, into, rows, 1, 0, true);
  product(`${name}, dB`, out, 16, rows, 1, 0, true);
}
for (const [name, out, into] of WEIGHTS)
  for (const m of [1, 4, 8, 16, 32, 64]) quantizedProduct(`${name}, decoding`, m, out, into, 1);
for (const [name, out, into] of WEIGHTS) {
  const n = out * into;
  if (!asked("dequantize")) continue;
  const w = copies(n / 2, () => quantized(n));
  const y = memory(n * 2, BF16);
  const call = (i: number): void => {
    const v = pick(w, i);
    calls.dequantizeNf4(v.q, v.absmax, v.absmax2, v.offset, y, n, 64, 0);
  };
  line(`dequantize ${name}`, time(call), { bytes: n * (0.5 + 1 / 64 + 2) });
  release();
}
if (asked("quantize")) {
  const n = 4096 * 14_336;
  const x = copies(n * 2, () => random(n));
  const [q, absmax] = [memory(n / 2, UINT8), memory(n / 16, F32)];
  line(
    "quantize bfloat16",
    time((i) => calls.quantizeNf4(pick(x, i), q, absmax, n, 64, 0)),
    { bytes: n * (2.5 + 1 / 16) },
  );
  release();
}
for (const m of [1, 4, 8]) for (const [name, out, into] of WEIGHTS) quantizedProduct(`decode ${name}`, m, out, into, 1);
if (asked("decode head")) {
  const [vocab, dim] = [128_256, 4096];
  const w = random(vocab * dim, 0.02);
  const [x, y] = [random(dim), memory(vocab * 4, F32)];
  const call = (): void => calls.gemm(x, w, 0, y, 1, vocab, dim, 0, 1, dim, dim, vocab, 0, 1, 0);
  line("decode head bfloat16", time(call), { bytes: vocab * dim * 2 });
  release();
}
if (asked("head and loss")) {
  const [vocab, dim] = [128_256, 4096];
  const w = random(vocab * dim, 0.02);
  const [x, dx] = [random(rows * dim), memory(rows * dim * 2, BF16)];
  const [labels, loss] = [memory(rows * 4, INT32), memory(rows * 4, F32)];
  calls.fill(labels, rows, 7);
  const call = (): void => calls.linearCrossEntropy(x, w, labels, loss, dx, 0, rows, dim, vocab, 0, 0, 1e-4, 0);
  line("head and loss, forward and backward", time(call), { flops: 4 * rows * vocab * dim });
  release();
}
