// A LoRA update is far smaller than what it is added to, above all in the first steps. Rounded apart, or added to an output that is rounded already, most of it would
// be lost: the sum is rounded once, so that over many outputs all of it is there.
import assert from "node:assert/strict";
import { test } from "node:test";
import { randn, Tensor } from "../../src/index.js";
import { cudaFailure } from "../../src/tensor/native.js";
import { weightProduct } from "../../src/tensor/ops/frozen.js";
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

for (const [m, outputs, inputs] of SHAPES)
  for (const dtype of ["bfloat16", "float16"] as const)
    for (const coded of [false, true])
      test(`${m} rows by ${outputs} x ${inputs}${coded ? " in NF4" : ""}, ${dtype}: small updates are kept`, {
        skip,
      }, async () => {
        seed(3);
        const [got, without, update] = scope(() => {
          const x = randn([m, inputs], cuda).to(dtype);
          const w = randn([outputs, inputs], cuda).mul(inputs ** -0.5);
          const weight = coded ? quantizeNf4(w, { doubleQuant: true }) : w.to(dtype);
          const dense = weight instanceof Tensor ? weight : weight.restore().to(dtype);
          const u = randn([m, RANK], cuda).to(dtype);
          const v = randn([outputs, RANK], cuda).mul(SMALL / RANK ** 0.5);
          const y = empty([m, outputs], dtype, "cuda");
          weightProduct(x, weight, y, m, true, { update: { u, v, rank: RANK, scale: 1 }, compute: "bfloat16" });
          const product = (a: Tensor, b: Tensor, k: number): Tensor => {
            const out = empty([m, outputs], "float32", "cpu");
            gemm(a.to("cpu").to("float32"), b.to("cpu").to("float32"), out, m, outputs, k, { transB: true });
            return out;
          };
          return [y.to("float32"), product(x, dense, inputs), product(u, v, RANK)];
        });
        const [y, base, d] = await Promise.all([got, without, update].map((t) => t.data()));
        let along = 0;
        let size = 0;
        for (let i = 0; i < d!.length; i++) {
          along += (y![i]! - base![i]!) * d![i]!;
          size += d![i]! * d![i]!;
        }
        const share = along / size;
        console.log(`${(100 * share).toFixed(1)}% of the update`);
        assert.ok(Math.abs(share - 1) < 0.05, `${(100 * share).toFixed(1)}% of the update is in y`);
        for (const t of [got, without, update]) t.dispose();
      });
