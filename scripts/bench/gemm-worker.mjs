// tunebook's side of gemm.mjs: one matrix product a request.
//   {m, n, k, form: "NT" | "NN" | "TN", weight: "float32" | "bfloat16" | "nf4", compute: "float32" | "bfloat16", seconds} → {seconds: best time of one product}
// The left operand and the result are float32, as they are in training; the right one is the weight.
import { createInterface } from "node:readline";
import { copy, gemm, gemmNf4, quantizeAbsmax, quantizeNf4 } from "../../dist/src/tensor/calls.js";
import { alloc, free, stats, sync, upload } from "../../dist/src/tensor/native.js";
import { clock, STRETCH } from "./clock.mjs";
import { random } from "./random.mjs";

const [FLOAT32, BFLOAT16, UINT8] = [0, 1, 4];
const BLOCK = 64;

/** The product as a function, and what to free after it. */
function prepare({ m, n, k, form, weight, compute }) {
  const held = [];
  const hold = (count, dtype, bytes) => {
    held.push(alloc(count * bytes, dtype));
    return held.at(-1);
  };
  const filled = (count) => {
    const x = hold(count, FLOAT32, 4);
    upload(x, random(count));
    return x;
  };
  const [ta, tb] = [form === "TN" ? 1 : 0, form === "NT" ? 1 : 0];
  const a = filled(m * k);
  const b = filled(n * k);
  const y = hold(m * n, FLOAT32, 4);
  const rounded = compute === "bfloat16" ? 1 : 0;
  if (weight === "nf4") {
    const blocks = (n * k) / BLOCK;
    const q = hold((n * k) / 2, UINT8, 1);
    const [absmax, codes] = [hold(blocks, FLOAT32, 4), hold(blocks, UINT8, 1)];
    const [absmax2, offset] = [hold(Math.ceil(blocks / 256), FLOAT32, 4), hold(1, FLOAT32, 4)];
    quantizeNf4(b, q, absmax, n * k, BLOCK, 0);
    quantizeAbsmax(absmax, codes, absmax2, offset, blocks);
    const [rows, cols] = tb ? [n, k] : [k, n];
    return [() => gemmNf4(a, q, codes, absmax2, offset, 0, y, m, rows, cols, tb, BLOCK, k, n, 0, rounded, 1, 0), held];
  }
  let right = b;
  if (weight === "bfloat16") {
    right = hold(n * k, BFLOAT16, 2);
    copy(b, right, n * k);
  }
  return [() => gemm(a, right, 0, y, m, n, k, ta, tb, ta ? m : k, tb ? k : n, n, rounded, 1, 0), held];
}

function best(request) {
  const [go, held] = prepare(request);
  const run = (times) => {
    const begun = clock();
    for (let i = 0; i < times; i++) go();
    sync();
    return (clock() - begun) / times;
  };
  run(1);
  const end = performance.now() + request.seconds * 1000;
  let least = Math.max(run(1), 1e-6);
  // Short products are timed many at once: the way to the device and back is not what is asked.
  const inner = Math.max(1, Math.min(200, Math.round(STRETCH / least)));
  do least = Math.min(least, run(inner));
  while (performance.now() < end);
  for (const handle of held) free(handle);
  return least;
}

const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
reply({ ready: true, name: `tunebook ${stats().isa}` });
for await (const line of createInterface({ input: process.stdin })) reply({ seconds: best(JSON.parse(line)) });
