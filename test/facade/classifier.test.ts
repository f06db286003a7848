import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Dataset, loadModel, type Model } from "../../src/index.js";
import { smallConfig, withModelFolder } from "./small.js";

const labels = ["cold", "warm", "wet"];
const words: Record<string, readonly string[]> = {
  cold: ["the snow lies deep", "ice on the pond", "a frost this night"],
  warm: ["the sun is out", "a hot day in June", "we sat by the fire"],
  wet: ["rain all day", "the river is high", "the sea came in"],
};
const rows = Array.from({ length: 36 }, (_, i) => {
  const label = labels[i % 3]!;
  return { text: `${words[label]![((i / 3) % 3) | 0]}, said ${["Ada", "Ben", "Cy", "Di"][(i / 9) | 0]}`, label };
});
const quiet = { progress: false } as const;
const make = (folder: string, more: object = {}): ReturnType<typeof loadModel> =>
  loadModel(folder, { weights: "random", seed: 3, task: "classification", labels, ...quiet, ...more });
const how = { method: "classification", steps: 30, batch: 6, lr: 5e-3, ...quiet } as const;

test("a head is trained with the whole model: rows by text, by number and by messages; it says classes with their shares", async () => {
  await withModelFolder(async (folder) => {
    const model = await make(folder);
    assert.deepEqual(model.labels, labels);
    assert.deepEqual(model.parameters().at(-1), {
      ...{ name: "score.weight", shape: [3, 64], dtype: "float32", trainable: true, bytes: 768 },
    });
    const result = await model.train(rows, { ...how, validation: rows });
    assert.ok(result.best!.validationLoss < 0.1, `${result.best!.validationLoss}`);
    const metrics = await model.evaluate(Dataset.from(rows), { metrics: ["classification", "loss"], ...quiet });
    assert.equal(metrics.accuracy, 1);
    assert.equal(metrics.confusion?.matrix.length, 3);
    assert.ok(Math.abs(metrics.loss! - result.best!.validationLoss) < 1e-5);
    assert.deepEqual(metrics.rows.columns, ["row", "loss", "tokens", "actual", "predicted", "correct", "confidence"]);
    const numbered = rows.map(({ text, label }) => ({ words: text, k: labels.indexOf(label) }));
    const format = (row: (typeof numbered)[number]) => ({ text: row.words, label: row.k });
    const again = await model.evaluate(numbered, { metrics: ["accuracy"], format, ...quiet });
    assert.equal(again.accuracy, 1);
    const found = await model.classify([words.cold![0]!, words.wet![1]!]);
    assert.deepEqual(
      found.map(({ label }) => label),
      ["cold", "wet"],
    );
    assert.deepEqual(await model.classify(words.cold![0]!), (await model.classify([words.cold![0]!]))[0]);
    for (const { label, probability, probabilities, logits } of found) {
      assert.equal(logits.length, 3);
      assert.equal(probabilities[label], probability);
      assert.ok(Math.abs(Object.values(probabilities).reduce((a, b) => a + b) - 1) < 1e-9);
    }
    const asChat = await model.classify([[{ role: "user", content: words.cold![0]! }]]);
    assert.equal(asChat.length, 1);
    const preview = await Dataset.from(rows).preview(model, { rows: 2, maxLength: 4 });
    assert.match(preview.toText(), /row 0, 1 of 4 tokens trained[\s\S]*⟦‹cold›⟧[\s\S]*⟦‹warm›⟧/);
    model.dispose();
  });
});

test("an adapter trains the head beside it, over float32, bfloat16 and 4 bits; saved, it gives the same in a new model", async () => {
  await withModelFolder(async (folder) => {
    const base = await make(folder);
    await base.export(join(folder, "base"));
    base.dispose();
    const load = (kind: string): ReturnType<typeof loadModel> => {
      const plan = loadModel(join(folder, "base"), { ...quiet, ...(kind === "bfloat16" ? { dtype: "bfloat16" } : {}) });
      return kind === "nf4" ? plan.quantize({ type: "nf4", doubleQuant: true }) : plan;
    };
    for (const kind of ["float32", "bfloat16", "nf4"]) {
      const model = await load(kind).addLora({ rank: 4, target: "all-linear", seed: 1 });
      const head = model.parameters().filter(({ name }) => name.startsWith("score"));
      assert.deepEqual(
        head.map(({ name, dtype, trainable }) => [name, dtype, trainable]),
        [
          ["score.original_module.weight", "float32", false],
          ["score.modules_to_save.default.weight", "float32", true],
        ],
      );
      const out = join(folder, kind);
      await model.train(rows, { ...how, lr: 1e-2, steps: 40, output: out });
      const { accuracy } = await model.evaluate(rows, { metrics: ["classification"], ...quiet });
      assert.ok(accuracy! > 0.9, `${kind}: ${accuracy}`);
      const config = JSON.parse(await readFile(join(out, "adapter_config.json"), "utf8"));
      assert.deepEqual([config.task_type, config.modules_to_save], ["SEQ_CLS", ["score"]]);
      assert.deepEqual(JSON.parse(await readFile(join(out, "labels.json"), "utf8")).id2label[2], "wet");
      const again = await load(kind).loadAdapter(out);
      const texts = rows.map(({ text }) => text);
      assert.deepEqual(await again.classify(texts), await model.classify(texts));
      again.dispose();
      model.dispose();
    }
  });
});

test("a decoder's checkpoint gets a new head, the same with the same seed; its own output layer is left out", async () => {
  await withModelFolder(
    async (folder) => {
      const decoder = await loadModel(folder, { weights: "random", seed: 5, ...quiet });
      await decoder.export(join(folder, "decoder"));
      decoder.dispose();
      const heads: Float32Array[] = [];
      for (const seed of [1, 1, 2]) {
        const model = await loadModel(join(folder, "decoder"), { task: "classification", labels, seed, ...quiet });
        assert.ok(model.parameters().every(({ name }) => !name.startsWith("lm_head")));
        heads.push(
          await (
            model.module.module("score") as unknown as { weight: { data(): Promise<Float32Array> } }
          ).weight.data(),
        );
        model.dispose();
      }
      assert.deepEqual(heads[0], heads[1]);
      assert.notDeepEqual(heads[0], heads[2]);
    },
    { ...smallConfig, tie_word_embeddings: false },
  );
});

test("what cannot be is refused in words that say what to do", async () => {
  await withModelFolder(async (folder) => {
    const fails = (promise: PromiseLike<unknown>, pattern: RegExp): Promise<void> =>
      assert.rejects(async () => void (await promise), pattern);
    const plain = (more: object = {}): ReturnType<typeof loadModel> =>
      loadModel(folder, { weights: "random", ...quiet, ...more });
    await fails(plain({ task: "classification" }), /labels must name at least two different classes, received none/);
    await fails(plain({ labels: ["one"] }), /at least two different classes, received \["one"\]/);
    await fails(plain({ labels: ["a", "a"] }), /at least two different/);
    await fails(plain({ labels, task: "generation" }), /labels belong to task: "classification"/);
    await fails(plain({ task: "guess" }), /task must be "generation" or "classification", received "guess"/);
    const model: Model = await make(folder);
    await fails(
      model.generate("rain"),
      /generate: this model has a head for the classes cold, warm, wet and none for tokens/,
    );
    await fails(model.chat([{ role: "user", content: "rain" }]), /generate: this model has a head/);
    await fails(model.loss([[1, 2]], [[1, 2]]), /loss: this model has a head/);
    await fails(model.evaluate(rows, { metrics: ["perplexity"] }), /metric "perplexity": this model has a head/);
    await fails(
      model.train(rows, quiet),
      /method "sft" \(method "classification" trains the head\): this model has a head/,
    );
    await fails(
      model.train([{ text: "x", label: "dry" }, ...rows], how),
      /Row 0 of the training rows has the label "dry", which is none of the model's classes: cold, warm, wet/,
    );
    await fails(model.train([{ text: "x", label: 3 }], how), /label 3, which is none/);
    await fails(model.train([{ text: "x" }], how), /none of the model's classes/);
    await fails(
      model.train([{ words: "x", label: "wet" }], how),
      /should be \{ text, label \} or \{ messages, label \}/,
    );
    await fails(
      model.train(
        rows.filter(({ label }) => label === "wet"),
        how,
      ),
      /All 12 rows of the training rows have the label "wet"/,
    );
    await fails(model.train([], how), /has no rows|have no rows/);
    assert.throws(() => model.train(rows, { ...how, lossType: "ipo" }), /lossType belongs to method "dpo"/);
    await fails(
      model.evaluate(rows, { metrics: ["classification"], labels: ["a", "b"] }),
      /classes cold, warm, wet, received labels a, b/,
    );
    await fails(model.evaluate(rows, { metrics: ["classification"], by: "generation" }), /leave "by" out/);
    await fails(
      model.evaluate(rows, { metrics: ["classification"], positive: "dry" }),
      /positive must be one of the labels/,
    );
    await fails(model.classify(["rain"], { batch: 0 }), /batch must be a whole number from 1, received 0/);
    await model.addLora({ rank: 2 }).save(join(folder, "adapter"));
    model.dispose();

    const decoder = await plain();
    await fails(
      decoder.classify(["rain"]),
      /classify: this model has no head for classes. Load it with \{ task: "classification"/,
    );
    await fails(decoder.train(rows, how), /no head for classes/);
    await fails(
      decoder.loadAdapter(join(folder, "adapter")),
      /belongs to a head for 3 classes \(task_type SEQ_CLS\).*labels: \["cold","warm","wet"\]/,
    );
    decoder.dispose();
    const other = await make(folder, { labels: ["a", "b"] });
    await fails(other.loadAdapter(join(folder, "adapter")), /a head for 3 classes, the model one for 2 \(a, b\)/);
    other.dispose();
    const mixed = await make(folder, { labels: ["warm", "cold", "wet"] });
    await fails(
      mixed.loadAdapter(join(folder, "adapter")),
      /the classes of this adapter are cold, warm, wet, the model's are warm, cold, wet/,
    );
    await writeFile(join(folder, "adapter", "labels.json"), "[]");
    await fails(mixed.loadAdapter(join(folder, "adapter")), /labels\.json should be/);
    mixed.dispose();
    const exported = await make(folder);
    await exported.export(join(folder, "whole"));
    exported.dispose();
    await fails(
      loadModel(join(folder, "whole"), { labels: ["a", "b"], ...quiet }),
      /describes a head for 3 classes \(cold, warm, wet\), received 2 labels/,
    );
    await fails(
      loadModel(join(folder, "whole"), { task: "generation", ...quiet }),
      /and none for tokens; leave task out/,
    );
  });
});

test("added tokens are trained beside the head, and two adapters have a head each", async () => {
  await withModelFolder(async (folder) => {
    const model = await make(folder);
    await model.export(join(folder, "base"));
    const load = (): ReturnType<typeof loadModel> => loadModel(join(folder, "base"), quiet);
    const texts = [...rows.slice(0, 3).map(({ text }) => text), "<new> <new>"];
    model.addTokens(["<new>"]);
    model.addLora({ rank: 2, target: ["q_proj"], modulesToSave: ["embed_tokens"], seed: 1 });
    await model.train([...rows, { text: "<new> <new>", label: "wet" }], { ...how, steps: 4 });
    await model.save(join(folder, "tokens"));
    const loaded = await load().loadAdapter(join(folder, "tokens"));
    assert.deepEqual(await loaded.classify(texts), await model.classify(texts));
    loaded.dispose();
    model.dispose();

    const two = await load().addLora({ rank: 2, seed: 1 });
    const plain = await two.classify(texts);
    two.addLora({ rank: 2, seed: 2, name: "second" });
    await two.train(rows, { ...how, steps: 4 });
    const second = await two.classify(texts);
    assert.notDeepEqual(second, plain);
    assert.deepEqual(await two.setAdapter("default").classify(texts), plain);
    const both = await two.evaluate(rows, { metrics: ["classification"], adapters: ["base", "second"], ...quiet });
    assert.equal(both.rows.length, 2 * rows.length);
    two.removeAdapter("default");
    assert.deepEqual(await two.setAdapter("second").classify(texts), second);
    two.dispose();
  });
});

test("a run with checkpoints is resumed to the same head, and a step's memory is predicted", async () => {
  await withModelFolder(async (folder) => {
    const whole = async (stop?: number): Promise<Model> => {
      const model = await (await make(folder)).addLora({ rank: 2, seed: 1 });
      const options = { ...how, steps: 8, output: join(folder, "run"), saveEvery: 4 };
      if (stop === undefined) await model.train(rows, { ...options, output: join(folder, "other") });
      else {
        const run = model.train(rows, options);
        for await (const step of run) if (step.step === stop) run.stop();
        await run;
        await model.train(rows, { ...options, resume: true });
      }
      return model;
    };
    const [straight, resumed] = [await whole(), await whole(5)];
    const texts = rows.map(({ text }) => text);
    assert.deepEqual(await resumed.classify(texts), await straight.classify(texts));
    assert.ok(straight.estimate({ batch: 2, length: 32 }).peak > 0);
    straight.dispose();
    resumed.dispose();
  });
});
