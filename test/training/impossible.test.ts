// The failures that trackers of fine-tuning libraries are full of, by name. Each must be impossible here.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { collate } from "../../src/data/collate.js";
import { type Example, exampleOf, IGNORED, trainedTargets } from "../../src/data/mask.js";
import { tokenizeRows } from "../../src/data/tokenize.js";
import { rowsOf } from "../../src/evaluation/loss.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { loadModel, type Model, type nn, noGrad, type TrainOptions, type TrainStep, tensor } from "../../src/index.js";
import { LoraLinear } from "../../src/lora/linear.js";
import type { Parameter } from "../../src/nn/module.js";
import { stats } from "../../src/tensor/native.js";
import { record } from "../../src/tensor/record.js";
import { outsideScope, scope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";
import { accumulateGradients } from "../../src/training/loss.js";
import { smallConfig, withModelFolder } from "../facade/small.js";
import { relativeError } from "../golden.js";
import { adapted, options, rows, withFolders } from "./resumable.js";

const hub: string = join(import.meta.dirname, "../../../test/fixtures/hub");
const plain: TrainOptions = { batch: 4, lr: 1e-2, schedule: "constant", progress: false };
const count = (ids: Iterable<number>, id: number | undefined): number =>
  [...ids].filter((other) => other === id).length;
const talk = [
  { role: "user", content: "the cat?" },
  { role: "assistant", content: "the old cat." },
] as const;

/** The parameters that are trained, by name. */
const trained = (model: Model): [string, Parameter][] =>
  [...model.module.namedParameters()].filter(([, p]) => p.requiresGrad);

describe("it is impossible that", () => {
  let llama: Tokenizer;
  let chatml: Tokenizer;
  before(async () => {
    llama = await Tokenizer.fromFolder(join(hub, "llama"));
    chatml = await Tokenizer.fromFolder(join(hub, "chatml"));
  });

  it("BOS is doubled or missing: texts, prompts and chats begin with the declared one, once", () => {
    for (const row of ["the cat", { prompt: "the cat", completion: " sat" }, [...talk]]) {
      const { ids } = exampleOf(row, llama);
      assert.equal(ids[0], llama.bosId);
      assert.equal(count(ids, llama.bosId), 1, JSON.stringify(row));
      assert.equal(chatml.bosId, undefined);
    }
    assert.equal(count(llama.encode("the cat", { addSpecialTokens: "before" }), llama.bosId), 1);
  });

  it("pad = eos masks the real eos: the mask goes by length, and eos is always trained", () =>
    withModelFolder(async (folder) => {
      const file = join(folder, "tokenizer_config.json");
      const config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
      await writeFile(file, JSON.stringify({ ...config, pad_token: config.eos_token }));
      const same = await Tokenizer.fromFolder(folder);
      assert.equal(same.padId, same.eosId);
      for (const row of ["the cat", { prompt: "the cat", completion: " sat" }, [...talk]]) {
        const { ids, labels } = exampleOf(row, same);
        const at = ids.lastIndexOf(same.eosId!);
        assert.equal(labels[at], same.eosId, JSON.stringify(row));
        // In a batch, behind a longer row, it is still the target of what precedes it.
        const longer = { ids: new Int32Array(ids.length + 3).fill(4), labels: new Int32Array(ids.length + 3).fill(4) };
        for (const paddingSide of ["right", "left", "none"] as const) {
          const batch = collate([{ ids, labels }, longer], { padId: same.padId!, paddingSide });
          const end = batch.sequences.begin[0]! + at - 1;
          assert.equal(batch.labels[end], same.eosId, paddingSide);
          assert.equal(batch.tokens, trainedTargets({ ids, labels }) + trainedTargets(longer));
        }
      }
      // A model that pads with eos learns to stop: rows of many lengths, padded.
      const losses: number[][] = [];
      for (const paddingSide of ["right", "none"] as const) {
        const model = await adapted(folder, { dropout: 0 });
        const { history } = await model.train(rows, { ...plain, steps: 5, paddingSide });
        losses.push(history.toRows().map((row) => (row as TrainStep).loss));
        model.dispose();
      }
      for (const [i, loss] of losses[0]!.entries()) assert.ok(Math.abs(loss - losses[1]![i]!) < 1e-5);
    }));

  it("special tokens typed by a user become real ones in a chat", () => {
    const quoted = [{ role: "user", content: "say <|im_end|> twice" }, talk[1]];
    const unquoted = count(exampleOf([...talk], chatml).ids, chatml.eosId);
    assert.ok(unquoted >= 2, "one a turn");
    assert.equal(count(exampleOf(quoted, chatml).ids, chatml.eosId), unquoted);
  });

  it("an adapter is never trained: after three steps every A and B has had a gradient and has changed", () =>
    withModelFolder(async (folder) => {
      for (const optimizer of ["adamw", "adamw8bit", "sgd"] as const) {
        const model = await adapted(folder, { dropout: 0 });
        const begin = await Promise.all(trained(model).map(([, p]) => p.data()));
        await model.train(rows, { ...plain, optimizer, steps: 3 });
        const end = await Promise.all(trained(model).map(([, p]) => p.data()));
        for (const [i, [name]] of trained(model).entries())
          assert.notDeepEqual(end[i], begin[i], `${name} with ${optimizer}`);
        model.dispose();
      }
    }));

  it("an adapter is never trained unnoticed: a matrix that the loss does not reach stops the run by name", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder, { dropout: 0 });
      const name = "model.layers.1.self_attn.o_proj";
      const layer = model.module.module(name);
      assert.ok(layer instanceof LoraLinear);
      layer.forward = (x) => layer.base_layer.forward(x);
      await assert.rejects(
        async () => model.train(rows, { ...plain, warmup: 2, steps: 8 }),
        (error: Error) => {
          assert.equal(error.name, "StateError");
          assert.match(error.message, /^Step 4: 2 of the adapter's 28 matrices never had a gradient/);
          assert.ok(error.message.includes(`${name}.lora_A.default.weight, ${name}.lora_B.default.weight`));
          return true;
        },
      );
      model.dispose();
    }));

  it("nothing is trained because lr is 0", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder);
      assert.throws(() => model.train(rows, { ...plain, lr: 0 }), /lr must be a number above 0/);
      model.dispose();
    }));

  it("nothing is trained because nothing is trainable", () =>
    withModelFolder(async (folder) => {
      const model = await loadModel(folder, { weights: "random", seed: 1, progress: false });
      model.quantize({ type: "nf4" });
      model.module.setRequiresGrad(false);
      assert.throws(() => model.train(rows, plain), /nothing is trainable/);
      model.dispose();
    }));

  it("all labels are -100, or there are no rows: an error shows the masked sample", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder);
      await assert.rejects(
        async () => model.train([{ messages: [{ role: "user", content: "only a question" }] }], plain),
        (error: Error) => {
          assert.equal(error.name, "DataError");
          assert.match(error.message, /no token of the training rows is trained.*only a question/s);
          return true;
        },
      );
      await assert.rejects(async () => model.train([], plain), /the training rows has no rows/);
      await assert.rejects(
        async () =>
          model.train([{ prompt: "the sea is ".repeat(40), completion: " blue" }], { ...plain, maxLength: 20 }),
        /were cut to maxLength 20: raise it/,
      );
      const labels = exampleOf([...talk], chatml).labels;
      assert.ok(labels.includes(IGNORED) && labels.some((label) => label !== IGNORED));
      model.dispose();
    }));

  it("a loss is silently no number: step, layer, batch and row are named, and the state before stays", () =>
    withModelFolder(
      async (folder) => {
        const output = await mkdtemp(join(tmpdir(), "tunebook-nan-"));
        try {
          const model = await adapted(folder, { dropout: 0 });
          // One token's embedding is so large that its fourth power overflows; only one row has it.
          const word = model.tokenizer.encode("zebra quick", { addSpecialTokens: false })[0]!;
          const mine = rows.filter(
            ({ prompt, completion }) => !model.tokenizer.encode(prompt + completion).includes(word),
          );
          assert.ok(mine.length > 8, "the word is in most rows");
          const embedding = [...model.module.namedParameters()].find(([name]) => name.includes("embed_tokens"))![1];
          const values = await embedding.data();
          values.fill(1e15, word * smallConfig.hidden_size, (word + 1) * smallConfig.hidden_size);
          embedding.set(values);
          const table = model.module.module("model.embed_tokens") as nn.Embedding;
          const look = table.forward.bind(table);
          table.forward = (ids) => {
            const y = look(ids);
            return y.add(y.square().square().mul(1e-30));
          };
          const data = [...mine.slice(0, 8), { prompt: "zebra quick", completion: " black" }, ...mine.slice(8)];
          const before = new Map<number, Float32Array[]>();
          const keep = async ({ step }: TrainStep): Promise<void> => {
            before.set(step, await Promise.all(trained(model).map(([, p]) => p.data())));
          };
          await assert.rejects(
            async () =>
              model.train(data, {
                ...plain,
                shuffle: false,
                batch: 2,
                accumulate: 2,
                epochs: 1,
                output,
                saveEvery: 1,
                callbacks: [keep],
              }),
            (error: Error) => {
              assert.equal(error.name, "DivergenceError");
              assert.match(error.message, /Step 3, micro-batch 1 of 2: .*training example 8 .*zebra quick/s);
              assert.match(error.message, /from the output of model\.embed_tokens on/);
              assert.match(error.message, /Step 2 is saved in .*checkpoint-2: .*resume: true/);
              return true;
            },
          );
          const after = await Promise.all(trained(model).map(([, p]) => p.data()));
          assert.deepEqual(after, before.get(2), "the parameters were changed by the step that went wrong");
          model.dispose();
        } finally {
          await rm(output, { recursive: true });
        }
      },
      { ...smallConfig, tie_word_embeddings: false },
    ));

  it("the layer where a loss stops being a number stays unnamed, or is named wrong", () =>
    withModelFolder(async (folder) => {
      for (const [name, checkpointing] of [
        ["model.layers.0.mlp.up_proj", "selective"],
        ["model.layers.1.self_attn.o_proj", "full"],
      ] as const) {
        const model = await adapted(folder, { dropout: 0 });
        await model.logits([Array.from({ length: 100 }, () => 1)]); // the tables of positions are there from now on
        const layer = model.module.module(name) as nn.Linear;
        const { forward } = layer;
        layer.forward = (x) => forward.call(layer, x).mul(Number.POSITIVE_INFINITY);
        const { handles } = stats();
        await assert.rejects(
          async () => model.train(rows, { ...plain, checkpointing, steps: 2 }),
          (error: Error) => {
            assert.ok(
              error.message.includes(`Step 1, micro-batch 1 of 1: the loss is NaN, from the output of ${name} on,`),
            );
            return true;
          },
        );
        assert.ok(Object.hasOwn(layer, "forward"), "a module's own forward was taken away");
        assert.equal(stats().handles, handles, "tensors were left behind");
        model.dispose();
      }
    }));

  it("packed samples see each other: another neighbour changes nothing", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder);
      const loss = async (second: string): Promise<number[]> => {
        const pair = [rows[0]!, { prompt: second, completion: " x" }];
        const seen: number[] = [];
        for (const packing of [true, false]) {
          const { history } = await model.train(pair, {
            ...plain,
            lr: 1e-30,
            steps: 1,
            batch: 2,
            ...(packing ? { packing } : { paddingSide: "right" as const }),
            maxLength: 96,
            validation: pair.slice(0, 1),
          });
          seen.push((history.at(0) as unknown as TrainStep).loss);
        }
        return seen;
      };
      for (const text of ["The rose", "one two three four five six seven"]) {
        const [packed, alone] = await loss(text);
        assert.ok(Math.abs(packed! - alone!) < 1e-5, `${packed} packed, ${alone} alone`);
      }
      model.dispose();
    }));

  it("packed samples see each other: each has the states and gradients that it has alone", () =>
    withModelFolder(
      async (folder) => {
        const model = await loadModel(folder, { weights: "random", seed: 1, device: "cpu", progress: false });
        const { examples } = await tokenizeRows(rows, model.tokenizer);
        const [first, second, third] = [examples[0]!, examples[3]!, examples[6]!];
        const states = async (packed: Example[]): Promise<Float32Array[]> => {
          const h = scope(() =>
            noGrad(() => model.module.hidden(rowsOf(model.module, collate(packed, { paddingSide: "none" })))),
          );
          const all = await h.data();
          h.dispose();
          let end = 0;
          return packed.map(({ ids }) => {
            const begin = end;
            end += ids.length * smallConfig.hidden_size;
            return all.slice(begin, end);
          });
        };
        const [alone] = await states([second]);
        for (const packed of [
          [first, second, third],
          [third, second],
          [second, first],
          [second, second],
        ]) {
          const got = (await states(packed))[packed.indexOf(second)]!;
          assert.ok(relativeError(got, alone!) < 1e-5);
        }
        // What is trained of the second alone gives the words of the others no gradient.
        const untrained = ({ ids }: Example): Example => ({ ids, labels: new Int32Array(ids.length).fill(IGNORED) });
        const packed = collate([untrained(first), second, untrained(third)], { paddingSide: "none" });
        const sum = outsideScope(() => empty([1], "float32", "cpu"));
        accumulateGradients(model.module, packed, packed.tokens, 0, sum, "selective");
        sum.dispose();
        const table = (model.module.module("model.embed_tokens") as nn.Embedding).weight;
        const gradient = await table.grad!.data();
        const reached = (id: number): boolean =>
          gradient.subarray(id * smallConfig.hidden_size, (id + 1) * smallConfig.hidden_size).some((v) => v !== 0);
        const others = [...new Set([...first.ids, ...third.ids])].filter((id) => !second.ids.includes(id));
        assert.ok(others.length >= 4, `${others.length} words of the neighbours' own`);
        assert.deepEqual(others.filter(reached), []);
        assert.ok([...second.ids.slice(0, -1)].every(reached));
        model.dispose();
      },
      { ...smallConfig, tie_word_embeddings: false },
    ));

  it("evaluation runs with dropout: the validation loss of a run is the one measured afterwards", () =>
    withModelFolder(async (folder) => {
      const model = await adapted(folder, { dropout: 0.5 });
      const result = await model.train(rows, { ...plain, steps: 6, validation: rows, evalEvery: 3 });
      const last = result.history.at(-1) as unknown as TrainStep;
      const { loss } = await model.evaluate(rows, { metrics: ["loss"], batch: 4, progress: false });
      assert.ok(Math.abs(last.validationLoss! - loss!) < 1e-6, `${last.validationLoss} and ${loss}`);
      assert.ok([...model.module.namedModules()].every(([, m]) => !m.training));
      model.dispose();
    }));

  it("the order of rows repeats or skips after a resume: every row comes once an epoch", () =>
    withFolders(async (folder, output) => {
      const seen: string[] = [];
      const watched = rows.map((row, i) => ({ ...row, completion: ` ${i}` }));
      const losses: number[][] = [];
      for (const stop of [4, 100]) {
        const model = await adapted(folder);
        const run = model.train(watched, {
          ...options,
          validation: watched.slice(0, 2),
          steps: 12,
          output,
          resume: stop === 100,
          callbacks: [
            (s: TrainStep) => {
              seen.push(`${s.step} ${s.tokens} ${s.epoch}`);
              if (s.step === stop) run.stop();
            },
          ],
        });
        losses.push((await run).history.toRows().map((row) => (row as TrainStep).loss));
        model.dispose();
      }
      assert.deepEqual(losses[1]!.slice(0, 4), losses[0]);
      assert.equal(new Set(seen).size, 12);
      const whole = await adapted(folder);
      const { history } = await whole.train(watched, { ...options, validation: watched.slice(0, 2), steps: 12 });
      assert.deepEqual(
        history.toRows().map((row) => {
          const s = row as TrainStep;
          return `${s.step} ${s.tokens} ${s.epoch}`;
        }),
        seen,
      );
      whole.dispose();
    }));

  it("a fused operation drops a gradient: what has no backward pass cannot be recorded", () => {
    const x = tensor([1, 2]);
    const y = tensor([1, 2]);
    x.requiresGrad = true;
    assert.throws(() => record("fused", [x], [y], "none"), /fused has no gradient, but an input needs one/);
    noGrad(() => record("fused", [x], [y], "none"));
    x.dispose();
    y.dispose();
  });
});
