import assert from "node:assert/strict";
import { test } from "node:test";
import { collate } from "../../src/data/collate.js";
import { rowsOf } from "../../src/evaluation/loss.js";
import { loadModel, type Model, type TrainStep, tensor } from "../../src/index.js";
import { noisy } from "../../src/models/causal.js";
import { seed } from "../../src/tensor/ops/random.js";
import { decaying } from "../../src/training/decay.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";

const quiet = { progress: false } as const;
const small = (folder: string): Promise<Model> =>
  Promise.resolve(loadModel(folder, { weights: "random", seed: 1, ...quiet }));

test("NEFTune's noise is uniform within ±alpha / sqrt(L d) of each row's own sequence, and absent from padding", () =>
  withModelFolder(async (folder) => {
    using model = await small(folder);
    const [alpha, width] = [5, smallConfig.hidden_size];
    const lengths = [4, 25];
    const examples = lengths.map((n) => ({ ids: new Int32Array(n).fill(7), labels: new Int32Array(n).fill(7) }));
    for (const paddingSide of ["none", "right"] as const) {
      const batch = collate(examples, { padId: 0, paddingSide });
      const rows = rowsOf(model.module, batch, alpha);
      seed(5);
      const noise = noisy(
        tensor(new Float32Array(batch.inputIds.length * width), [batch.inputIds.length, width]),
        rows.noise,
      );
      const values = await noise.data();
      lengths.forEach((length, s) => {
        const from = batch.sequences.begin[s]! * width;
        const own = values.subarray(from, from + length * width);
        const most = alpha / Math.sqrt(length * width);
        const largest = own.reduce((a, v) => Math.max(a, Math.abs(v)), 0);
        const variance = own.reduce((a, v) => a + v * v, 0) / own.length;
        assert.ok(largest <= most && largest > 0.95 * most, `${largest} of ${most}`);
        assert.ok(Math.abs(variance / (most ** 2 / 3) - 1) < 0.2, `variance ${variance}`);
      });
      const drawn = lengths.reduce((a, b) => a + b, 0) * width;
      assert.equal(values.filter((v) => v !== 0).length, drawn);
    }
  }));

test("NEFTune changes training alone, follows the seed, and is off by default", () =>
  withModelFolder(async (folder) => {
    const runs: number[][] = [];
    for (const [neftune, runSeed] of [
      [0, 1],
      [undefined, 1],
      [5, 1],
      [5, 1],
      [5, 2],
    ] as const) {
      const model = (await small(folder)).addLora({ rank: 4, seed: 9 });
      const { history } = await model.train(colourRows(8), {
        ...(neftune === undefined ? {} : { neftune }),
        validation: colourRows(4),
        batch: 4,
        epochs: 2,
        lr: 1e-20, // no bit of a loss moves
        seed: runSeed,
        shuffle: false,
        ...quiet,
      });
      const steps = history.toRows() as unknown as TrainStep[];
      runs.push([...steps.map((s) => s.loss), steps.at(-1)!.validationLoss!]);
      model.dispose();
    }
    const [none, unset, first, again, other] = runs as [number[], number[], number[], number[], number[]];
    assert.deepEqual(unset, none);
    assert.deepEqual(again, first);
    assert.notDeepEqual(first.slice(0, -1), none.slice(0, -1));
    assert.notDeepEqual(other.slice(0, -1), first.slice(0, -1));
    assert.equal(first.at(-1), none.at(-1), "the validation rows had noise");
  }));

test("weight decay leaves biases and norms alone, by transformers' rule", () =>
  withModelFolder(
    async (folder) => {
      const model = await small(folder);
      const decays = decaying(model.module);
      const spared: string[] = [];
      for (const [name, p] of model.module.namedParameters()) if (!decays(p)) spared.push(name);
      const layer = (i: number): string[] => [
        ...["q_proj", "k_proj", "v_proj", "o_proj"].map((n) => `model.layers.${i}.self_attn.${n}.bias`),
        `model.layers.${i}.input_layernorm.weight`,
        `model.layers.${i}.post_attention_layernorm.weight`,
      ];
      assert.deepEqual(spared.sort(), [...layer(0), ...layer(1), "model.norm.weight"].sort());
      // Gradients of 0 would leave all else as it is: what shrinks has decayed.
      const read = async (): Promise<Map<string, number>> => {
        const sizes = new Map<string, number>();
        for (const [name, p] of model.module.namedParameters())
          sizes.set(
            name,
            (await p.data()).reduce((n, v) => n + v * v, 0),
          );
        return sizes;
      };
      const before = await read();
      await model.train(colourRows(4), {
        steps: 1,
        batch: 4,
        lr: 1e-4,
        weightDecay: 1000,
        schedule: "constant",
        optimizer: "sgd",
        maxGradNorm: 1e-9,
        ...quiet,
      });
      for (const [name, size] of await read()) {
        const factor = size / before.get(name)!;
        if (before.get(name) === 0) continue;
        const want = spared.includes(name) ? 1 : 0.81;
        assert.ok(Math.abs(factor - want) < 1e-3, `${name} went to ${factor} of its square`);
      }
      model.dispose();
    },
    { ...smallConfig, attention_bias: true },
  ));
