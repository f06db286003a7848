// Matrix products beside torch (oneDNN for bfloat16, its BLAS for float32), shape by shape in turns: those of a step of the SmolLM2-135M shape, and squares.
// In bfloat16 torch reads and writes bfloat16; tunebook reads and writes float32 activations, as it does in training, and rounds them while packing.
import { join } from "node:path";
import { bin } from "../venv.mjs";
import { busyness, Contender, median, root, short, threads } from "./duel.mjs";
import { SHAPES } from "./shapes.mjs";

/** What the project wants of every product with 256 rows or more. */
const WANTED = 0.85;

/** How each side multiplies; `weight` is tunebook's right operand. */
const KINDS = [
  { name: "float32", dtype: "float32", weight: "float32", compute: "float32" },
  { name: "bfloat16", dtype: "bfloat16", weight: "bfloat16", compute: "bfloat16" },
  { name: "bfloat16 from float32", dtype: "bfloat16", weight: "float32", compute: "bfloat16" },
  { name: "bfloat16 from NF4", dtype: "bfloat16", weight: "nf4", compute: "bfloat16" },
];

/** [what, m, n, k, form]. NT: x W^T, forward; NN: dy W, backward; TN: dy^T x, a weight's gradient. */
function products(smoke) {
  if (smoke) return [["smoke", 64, 96, 128, "NT"]];
  const {
    hidden_size: d,
    intermediate_size: f,
    vocab_size: v,
    num_key_value_heads: kv,
    head_dim,
  } = SHAPES["SmolLM2-135M"];
  const list = [];
  for (const m of [256, 512, 1024]) {
    list.push(
      ["q, o", m, d, d, "NT"],
      ["k, v", m, kv * head_dim, d, "NT"],
      ["gate, up", m, f, d, "NT"],
      ["down", m, d, f, "NT"],
    );
    list.push(["k, v, dx", m, d, kv * head_dim, "NN"], ["gate, up, dx", m, d, f, "NN"], ["down, dx", m, f, d, "NN"]);
  }
  for (const m of [256, 1024]) list.push(["head", m, v, d, "NT"], ["head, dx", m, d, v, "NN"]);
  list.push(["gate, dW", f, d, 1024, "TN"], ["down, dW", d, f, 1024, "TN"]);
  for (const n of [1024, 2048]) list.push(["square", n, n, n, "NT"], ["square, dx", n, n, n, "NN"]);
  return list;
}

/** Runs the cases whose line contains `filter` ("bfloat16 gate", "1024", …). */
export async function benchGemm({ smoke, rounds, filter = "" }) {
  const cases = KINDS.flatMap((kind) =>
    products(smoke).map(([what, m, n, k, form]) => ({ ...kind, what, m, n, k, form, ours: [], theirs: [] })),
  )
    .filter((c) => c.weight === "float32" || c.form !== "TN")
    .filter((c) => `${c.name} ${c.what} ${c.m} x ${c.n} x ${c.k} ${c.form}`.includes(filter));
  if (cases.length === 0) return;
  const seconds = smoke ? 0.01 : 0.06;
  const ours = new Contender("tunebook", process.execPath, [join(root, "scripts", "bench", "gemm-worker.mjs")]);
  const theirs = new Contender("torch", bin("python"), [join(root, "scripts", "peers", "gemm.py"), String(threads)]);
  const before = busyness();
  try {
    await ours.ready();
    await theirs.ready();
    for (let round = 0; round < rounds; round++) {
      for (const [i, c] of cases.entries()) {
        const request = {
          m: c.m,
          n: c.n,
          k: c.k,
          form: c.form,
          weight: c.weight,
          compute: c.compute,
          dtype: c.dtype,
          seconds,
        };
        const turns = [
          async () => c.ours.push((await ours.ask(request)).seconds),
          async () => c.theirs.push((await theirs.ask(request)).seconds),
        ];
        for (const turn of (round + i) % 2 === 0 ? turns : turns.reverse()) await turn();
      }
    }
  } finally {
    ours.close();
    theirs.close();
  }
  report(cases, [ours, theirs], rounds, `load ${before} before, ${busyness()} after`);
}

function report(cases, [ours, theirs], rounds, busy) {
  console.log(
    `\nMatrix products: ${ours.name} and ${theirs.name}, ${threads} threads, ${rounds} rounds in turns, ${busy}`,
  );
  const ascending = (list) => list.sort((a, b) => a - b);
  for (const c of cases) {
    const [own, peer] = [ascending(c.ours), ascending(c.theirs)];
    c.best = peer[0] / own[0];
    c.median = median(peer) / median(own);
  }
  for (const { name } of KINDS) {
    const rows = cases.filter((c) => c.name === name);
    if (rows.length === 0) continue;
    console.log(`\n${name}: GFLOP/s, and the share of torch's that tunebook reaches`);
    console.table(
      rows.map((c) => {
        const rate = (seconds) => short((2e-9 * c.m * c.n * c.k) / seconds);
        return {
          "": c.what,
          "m x n x k": `${c.m} x ${c.n} x ${c.k} ${c.form}`,
          "tunebook, best": rate(c.ours[0]),
          median: rate(median(c.ours)),
          "torch, best": rate(c.theirs[0]),
          "median ": rate(median(c.theirs)),
          "ratio, best": short(c.best),
          "ratio, median": short(c.median),
        };
      }),
    );
    const least = rows.reduce((a, b) => (b.best < a.best ? b : a));
    const below = rows.filter((c) => c.best < WANTED).length;
    console.log(
      `least: ${least.best.toFixed(2)} (${least.what}, ${least.m} x ${least.n} x ${least.k} ${least.form}); below ${WANTED}: ${below} of ${rows.length}`,
    );
  }
}
