// GFLOP/s of the matrix product by shape: best of many short runs, since the clock and the neighbours of a shared machine vary.
//   node scripts/bench-gemm.mjs [--seconds 0.5] [--json] [--filter text] [--bf16]   (bf16: bfloat16 right operands and products)
import { parseArgs } from "node:util";
import { copy, gemm, gemmNf4, quantizeNf4 } from "../dist/src/tensor/calls.js";
import { alloc, free, stats, sync, upload } from "../dist/src/tensor/native.js";
import { random } from "./bench/random.mjs";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "0.4" },
    json: { type: "boolean", default: false },
    bf16: { type: "boolean", default: false },
    filter: { type: "string", default: "" },
  },
});

/** [name, m, n, k, transposed a, transposed b, NF4 weight]: shapes of a 135M-parameter model's step. */
export const SHAPES = [
  ["q/o forward", 1024, 576, 576, 0, 1],
  ["gate/up forward", 1024, 1536, 576, 0, 1],
  ["down forward", 1024, 576, 1536, 0, 1],
  ["square", 1024, 1536, 1536, 0, 1],
  ["gate/up backward dx", 1024, 576, 1536, 0, 0],
  ["down backward dx", 1024, 1536, 576, 0, 0],
  ["weight gradient", 1536, 576, 1024, 1, 0],
  ["both transposed", 1024, 1536, 576, 1, 1],
  ["head", 1024, 49152, 576, 0, 1],
  ["LoRA x A^T", 1024, 16, 576, 0, 1],
  ["LoRA h B^T", 1024, 576, 16, 0, 1],
  ["LoRA dA", 16, 576, 1024, 1, 0],
  ["LoRA dB", 576, 16, 1024, 1, 0],
  ["LoRA dx", 1024, 576, 16, 0, 0],
  ["LoRA r64", 1024, 64, 576, 0, 1],
  ["decode m=1", 1, 1536, 576, 0, 1],
  ["decode m=1 head", 1, 49152, 576, 0, 1],
  ["decode m=1, plain b", 1, 1536, 576, 0, 0],
  ["decode m=4", 4, 1536, 576, 0, 1],
  ["m=8", 8, 1536, 576, 0, 1],
  ["m=32", 32, 1536, 576, 0, 1],
  ["gate/up forward NF4", 1024, 1536, 576, 0, 1, true],
  ["down forward NF4", 1024, 576, 1536, 0, 1, true],
  ["gate/up backward NF4", 1024, 576, 1536, 0, 0, true],
  ["decode m=1 NF4", 1, 1536, 576, 0, 1, true],
  ["decode m=4 NF4", 4, 1536, 576, 0, 1, true],
  ["m=32 NF4", 32, 1536, 576, 0, 1, true],
];

function tensor(count, fill = true) {
  const h = alloc(count * 4, 0);
  if (fill) upload(h, random(count));
  return h;
}

/** Best seconds of one product. */
function time([, m, n, k, ta, tb, nf4], seconds) {
  const a = tensor(m * k);
  const b = tensor(n * k);
  const y = tensor(m * n, false);
  const compute = values.bf16 ? 1 : 0;
  const extra = [];
  let right = b;
  if (compute && !nf4) {
    right = alloc(n * k * 2, 1);
    copy(b, right, n * k);
    extra.push(right);
  }
  let go = () => gemm(a, right, 0, y, m, n, k, ta, tb, ta ? m : k, tb ? k : n, n, compute, 1, 0);
  if (nf4) {
    const q = alloc((n * k) / 2, 4);
    const absmax = alloc(((n * k) / 64) * 4, 0);
    extra.push(q, absmax);
    quantizeNf4(b, q, absmax, n * k, 64, 0);
    const [rows, cols] = tb ? [n, k] : [k, n];
    go = () => gemmNf4(a, q, absmax, 0, 0, 0, y, m, rows, cols, tb, 64, k, n, 0, compute, 1, 0);
  }
  go();
  sync();
  // Short products are timed many at once: a queue's round trip is not what is asked.
  let t = performance.now();
  go();
  sync();
  const once = Math.max((performance.now() - t) / 1000, 1e-6);
  const inner = Math.max(1, Math.min(200, Math.round(0.002 / once)));
  let best = Infinity;
  const end = performance.now() + seconds * 1000;
  do {
    t = performance.now();
    for (let i = 0; i < inner; i++) go();
    sync();
    best = Math.min(best, (performance.now() - t) / 1000 / inner);
  } while (performance.now() < end);
  for (const h of [a, b, y, ...extra]) free(h);
  return best;
}

const rows = [];
for (const shape of SHAPES) {
  if (!shape[0].includes(values.filter)) continue;
  const [name, m, n, k, ta, tb, nf4] = shape;
  const seconds = time(shape, Number(values.seconds));
  const row = {
    name,
    m,
    n,
    k,
    ta,
    tb,
    nf4: nf4 ?? false,
    bf16: values.bf16,
    microseconds: seconds * 1e6,
    gflops: (2 * m * n * k) / seconds / 1e9,
  };
  rows.push(row);
  if (!values.json) {
    console.log(
      `${name.padEnd(22)} ${`${m} x ${n} x ${k} ${ta ? "T" : "N"}${tb ? "T" : "N"}`.padEnd(22)} ${row.microseconds.toFixed(1).padStart(10)} µs ${row.gflops.toFixed(1).padStart(8)} GFLOP/s`,
    );
  }
}
if (values.json) console.log(JSON.stringify({ stats: stats(), rows }));
