// What this machine can do, as a contender that takes its turn with the others: the library's own best matrix product, and memory read and copied by all
// threads. Each answer is the best of a few short runs.
//   {} → {"float32": GFLOP/s, "bfloat16": GFLOP/s, "read": GB/s, "copy": GB/s}
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Contender } from "./duel.mjs";

/** The contender. */
export function limits() {
  return new Contender("limits", process.execPath, [fileURLToPath(import.meta.url), "worker"]);
}

/** The best figures of all rounds, with a line that tells them. */
export function bestLimits(contender) {
  const best = {};
  for (const field of ["float32", "bfloat16", "read", "copy"]) best[field] = contender.all(field).at(-1);
  const text =
    `limits in the same rounds: own best product ${best.float32.toFixed(0)} GFLOP/s float32, ${best.bfloat16.toFixed(0)} bfloat16; ` +
    `memory ${best.read.toFixed(0)} GB/s read, ${best.copy.toFixed(0)} copied`;
  return { ...best, text };
}

async function work() {
  const { copy, gemm, reduce } = await import("../../dist/src/tensor/calls.js");
  const { alloc, sync } = await import("../../dist/src/tensor/native.js");
  const m = 1024;
  const n = 1536;
  const k = 576;
  const [a, b, y, half] = [alloc(m * k * 4, 0), alloc(n * k * 4, 0), alloc(m * n * 4, 0), alloc(n * k * 2, 1)];
  const rows = 8192; // x 4096 floats: 128 MiB, past every cache
  const [from, to] = [alloc(rows * 4096 * 4, 0), alloc(rows * 4096 * 4, 0)];
  const { fill } = await import("../../dist/src/tensor/calls.js");
  for (const [x, count] of [
    [a, m * k],
    [b, n * k],
    [from, rows * 4096],
    [to, rows * 4096],
  ])
    fill(x, count, 0.5);
  copy(b, half, n * k);
  const best = (go, runs) => {
    let seconds = Number.POSITIVE_INFINITY;
    for (let i = 0; i < runs; i++) {
      const begun = performance.now();
      go();
      sync();
      seconds = Math.min(seconds, (performance.now() - begun) / 1000);
    }
    return seconds;
  };
  const product = (right, compute) =>
    (2e-9 * m * n * k) / best(() => gemm(a, right, 0, y, m, n, k, 0, 1, k, k, n, compute, 1, 0), 24);
  console.log(JSON.stringify({ ready: true }));
  for await (const _ of createInterface({ input: process.stdin })) {
    console.log(
      JSON.stringify({
        float32: product(b, 0),
        bfloat16: product(half, 1),
        read: (4e-9 * rows * 4096) / best(() => reduce(from, to, 0, rows, 4096, 1), 4),
        copy: (8e-9 * rows * 4096) / best(() => copy(from, to, rows * 4096), 4),
      }),
    );
  }
}

if (process.argv[2] === "worker" && process.argv[1] === fileURLToPath(import.meta.url)) await work();
