// The GPU restores the 4-bit weight that it expects next beside the running product (native/cuda/weights_ahead.cu). Whatever happens to that
// weight in between, the product must be one with the weight as it is then. Under TUNEBOOK_FAKE_CUDA=1 nothing is restored ahead.
import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Random } from "../../src/data/random.js";
import * as calls from "../../src/tensor/calls.js";
import { FileLoads } from "../../src/tensor/load.js";
import { cudaFailure, trim } from "../../src/tensor/native.js";
import { scaleInPlace } from "../../src/tensor/ops/elementwise.js";
import { linearCrossEntropyRows } from "../../src/tensor/ops/loss.js";
import { linearNf4, type Nf4Weight, quantizeNf4 } from "../../src/tensor/ops/nf4.js";
import { noGrad } from "../../src/tensor/record.js";
import { Recording } from "../../src/tensor/recording.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";
import { relativeError } from "../golden.js";

process.env.TUNEBOOK_WEIGHTS_AHEAD = "1"; // read when the first weight is restored
const missing = cudaFailure();
const skip = missing === undefined ? false : `no CUDA device: ${missing}`;
const device = "cuda";
const SIZE = 512;
const ROWS = 128; // few rows read the codes themselves

function matrix(rows: number, seed: number): Tensor {
  const random = new Random(seed);
  const values = Float32Array.from({ length: rows * SIZE }, () => random.nextFloat() - 0.5);
  return tensor(values, { shape: [rows, SIZE], device });
}

function weight(seed: number): Nf4Weight {
  using dense = matrix(SIZE, seed);
  return quantizeNf4(dense);
}

const product = (x: Tensor, w: Nf4Weight): Tensor => noGrad(() => linearNf4(x, w, undefined, "bfloat16"));

/** The product with the weight restored in float32, which reads the weight: after the product. */
async function expected(x: Tensor, w: Nf4Weight): Promise<Float32Array> {
  using dense = w.restore();
  using y = noGrad(() => x.linear(dense));
  return y.data();
}

let folder = "";
before(() => {
  folder = mkdtempSync(join(tmpdir(), "weights-ahead-"));
});
after(() => rmSync(folder, { recursive: true }));

interface Change {
  /** Called before the weight is restored ahead; what it does to the weight is undone. */
  prepare?: (w: Nf4Weight) => void;
  /** Gives another weight where it does not change this one. */
  act: (w: Nf4Weight, other: Nf4Weight) => void | Promise<void> | Nf4Weight;
  /** Whether the values stay. */
  same?: true;
}

let recording: Recording | undefined;
const CHANGES: Record<string, Change> = {
  "other codes from JavaScript": {
    act: async (w, other) => {
      w.codes.set(await other.codes.raw());
    },
  },
  "other scales from JavaScript": {
    act: (w) => {
      w.absmax.set(new Float32Array(w.absmax.size).fill(2));
    },
  },
  "codes copied by an operation": { act: (w, o) => calls.copy(o.codes.handle, w.codes.handle, o.codes.size) },
  "a part of its codes": {
    act: (w, o) => {
      const half = w.codes.size / 2;
      calls.copy2d(o.codes.handle, w.codes.handle, 1, half, 0, half, half, half, 0);
    },
  },
  "scales changed in place": { act: (w) => scaleInPlace(w.absmax, -3) },
  "another matrix quantised into it": {
    act: (w) => {
      using dense = matrix(SIZE, 9);
      calls.quantizeNf4(dense.handle, w.codes.handle, w.absmax.handle, dense.size, w.block, 0);
    },
  },
  "codes read from a file": {
    act: async (w, other) => {
      const path = join(folder, "codes");
      writeFileSync(path, (await other.codes.raw()) as Uint8Array);
      const fd = openSync(path, "r");
      const loads = new FileLoads(device);
      await loads.load(w.codes, { fd, path, offset: 0, bytes: w.codes.bytes }, "codes");
      await loads.end();
      closeSync(fd);
    },
  },
  "a graph that writes to it": {
    prepare: (w) => {
      recording = Recording.of(device, () => scaleInPlace(w.absmax, 0.25));
      scaleInPlace(w.absmax, 4);
    },
    act: () => recording!.launch(),
  },
  "freed, and another one in its memory": {
    act: (w) => {
      w.dispose();
      return weight(9);
    },
  },
  "its place taken by the head's logits": {
    same: true,
    act: () => {
      using x = matrix(ROWS, 20);
      using head = matrix(3000, 21);
      using labels = tensor(Int32Array.from({ length: ROWS }, (_, i) => 7 * i), { shape: [ROWS], device }); // biome-ignore format: one line
      noGrad(() => linearCrossEntropyRows(x, head, labels)).dispose();
    },
  },
  "working memory given back": { same: true, act: () => trim(device) },
  "a larger weight before it": {
    same: true,
    act: () => {
      using x = matrix(ROWS, 22);
      using dense = matrix(8 * SIZE, 23);
      using large = quantizeNf4(dense);
      product(x, large).dispose();
    },
  },
};

for (const [name, { prepare, act, same }] of Object.entries(CHANGES)) {
  test(`a weight restored ahead: ${name}`, { skip }, async () => {
    const x = matrix(ROWS, 1);
    const weights = [2, 3, 4].map(weight);
    const other = weight(77);
    prepare?.(weights[2]!);
    for (let round = 0; round < 2; round++) {
      let old: Float32Array = new Float32Array();
      for (let turn = 0; turn < 3; turn++) {
        const ys = weights.map((w) => product(x, w));
        for (const [i, y] of ys.entries()) {
          const values = await y.data();
          assert.ok(relativeError(values, await expected(x, weights[i]!)) < 2e-2, `weight ${i}, turn ${turn}`);
          if (i === 2) old = values;
          y.dispose();
        }
      }
      for (const w of weights.slice(0, 2)) product(x, w).dispose();
      weights[2] = (await act(weights[2]!, other)) ?? weights[2]!;
      using y = product(x, weights[2]!);
      const values = await y.data();
      assert.ok(relativeError(values, await expected(x, weights[2]!)) < 2e-2);
      if (same) assert.deepEqual(values, old);
      else if (round === 0) assert.ok(relativeError(values, old) > 0.1, "the weight did not change");
    }
    recording?.dispose();
    recording = undefined;
    for (const t of [x, other, ...weights]) t.dispose();
  });
}
