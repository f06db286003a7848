// A LoRA update is far smaller than what it is added to, above all in the first steps. Rounded apart, or added to an output that is rounded already, most of it would
// be lost: the sum is rounded once, or up and down by chance, so that over many outputs all of it is there.
import assert from "node:assert/strict";
import { test } from "node:test";
import { randn, Tensor, tensor, zeros } from "../../src/index.js";
import * as calls from "../../src/tensor/calls.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { quantizeFp8 } from "../../src/tensor/ops/fp8.js";
import { weightProduct } from "../../src/tensor/ops/frozen.js";
import { quantizeInt8 } from "../../src/tensor/ops/int8.js";
import { gemm } from "../../src/tensor/ops/matmul.js";
import { quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { seed } from "../../src/tensor/ops/random.js";
import { scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";

const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const cuda = { device: "cuda" } as const;
const RANK = 16;
/** Of the standard deviation of x Wᵀ; half a unit in the last place of bfloat16 is 0.2% to 0.4% of a number. */
const SMALL = 5e-4;

/** m rows by an (out, in) weight: narrow tiles, wide ones, edges of both. */
const SHAPES: [m: number, outputs: number, inputs: number][] = [
  [512, 576, 576],
  [130, 192, 1536],
  [700, 1000, 264],
  [2048, 2048, 512],
];

/** How much of `d` is in y beyond `without`. */
async function shareOf(d: Tensor, y: Tensor, without: Tensor): Promise<number> {
  const [update, sum, rest] = await Promise.all([d, y, without].map((t) => t.data()));
  let along = 0;
  let size = 0;
  for (let i = 0; i < update!.length; i++) {
    along += (sum![i]! - rest![i]!) * update![i]!;
    size += update![i]! * update![i]!;
  }
  for (const t of [d, y, without]) t.dispose();
  return along / size;
}

function checkShare(share: number): void {
  console.log(`${(100 * share).toFixed(1)}% of the update`);
  assert.ok(Math.abs(share - 1) < 0.05, `${(100 * share).toFixed(1)}% of the update is in y`);
}

/** a bᵀ in float32 on the CPU. */
function product(a: Tensor, b: Tensor): Tensor {
  const [m, n, k] = [a.dim(0), b.dim(0), a.dim(1)];
  const out = empty([m, n], "float32", "cpu");
  gemm(a.to("cpu").to("float32"), b.to("cpu").to("float32"), out, m, n, k, { transB: true });
  return out;
}

const factors = (m: number, outputs: number, dtype: "bfloat16" | "float16") => ({
  u: randn([m, RANK], cuda).to(dtype),
  v: randn([outputs, RANK], cuda).mul(SMALL / RANK ** 0.5),
});

for (const [m, outputs, inputs] of SHAPES)
  for (const dtype of ["bfloat16", "float16"] as const)
    for (const coded of [false, true])
      test(`${m} rows by ${outputs} x ${inputs}${coded ? " in NF4" : ""}, ${dtype}: small updates are kept`, {
        skip,
      }, async () => {
        seed(3);
        const sums = scope(() => {
          const x = randn([m, inputs], cuda).to(dtype);
          const w = randn([outputs, inputs], cuda).mul(inputs ** -0.5);
          const weight = coded ? quantizeNf4(w, { doubleQuant: true }) : w.to(dtype);
          const dense = weight instanceof Tensor ? weight : weight.restore().to(dtype);
          const { u, v } = factors(m, outputs, dtype);
          const y = empty([m, outputs], dtype, "cuda");
          weightProduct(x, weight, y, m, true, { update: { u, v, rank: RANK }, compute: "bfloat16" });
          return [product(u, v), y.to("float32"), product(x, dense)];
        });
        checkShare(await shareOf(...(sums as [Tensor, Tensor, Tensor])));
      });

// Their products have no sum with the update: it is added by a kernel that rounds up or down by chance.
const apart = skip || (process.env.TUNEBOOK_FAKE_CUDA === "1" ? "the stand-in rounds to the nearest number" : false);
for (const kind of ["int8", "fp8"] as const)
  test(`over ${kind} small updates are kept`, { skip: apart }, async () => {
    seed(3);
    const [m, outputs, inputs] = [1024, 1024, 512];
    const sums = scope(() => {
      const x = randn([m, inputs], cuda).to("bfloat16");
      const w = randn([outputs, inputs], cuda).mul(inputs ** -0.5);
      const weight = kind === "int8" ? quantizeInt8(w) : quantizeFp8(w);
      const { u, v } = factors(m, outputs, "bfloat16");
      const [y, without] = [empty([m, outputs], "bfloat16", "cuda"), empty([m, outputs], "bfloat16", "cuda")];
      weightProduct(x, weight, without, m, true, { compute: "bfloat16" });
      weightProduct(x, weight, y, m, true, { update: { u, v, rank: RANK }, compute: "bfloat16" });
      return [product(u, v), y.to("float32"), without.to("float32")];
    });
    checkShare(await shareOf(...(sums as [Tensor, Tensor, Tensor])));
  });

for (const dtype of ["bfloat16", "float16"] as const)
  test(`what is added to ${dtype} stays in the mean, the same each time; nothing changes nothing, and what is no number stays so`, {
    skip: apart,
  }, async () => {
    seed(3);
    const [m, n] = [512, 1024];
    const values = await randn([m, n]).data();
    values.set([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0]);
    const begin = tensor(values, { shape: [m, n], device: "cuda" }).to(dtype);
    const { u, v } = factors(m, n, dtype);
    const added = (by: Tensor): Tensor => {
      const y = empty([m, n], dtype, "cuda");
      calls.copy(begin.handle, y.handle, y.size);
      gemm(by, v, y, m, n, RANK, { transB: true, beta: 1 });
      return y;
    };
    const [before, same, once, twice] = await Promise.all(
      [begin, added(zeros([m, RANK], cuda).to(dtype)), added(u), added(u)].map((t) => t.data()),
    );
    assert.deepEqual(same, before);
    assert.deepEqual(twice, once);
    assert.deepEqual(once!.slice(0, 3), before!.slice(0, 3));
    const rows = (x: Float32Array): Tensor => tensor(x.slice(n), { shape: [m - 1, n] });
    const whole = await product(u, v).data();
    checkShare(await shareOf(rows(whole), rows(once!), rows(before!)));
  });
