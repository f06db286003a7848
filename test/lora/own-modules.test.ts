import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  CheckpointError,
  loadModel,
  loadParameters,
  type Model,
  nn,
  noGrad,
  StateError,
  saveParameters,
  seed,
  type Tensor,
} from "../../src/index.js";
import { ownModules } from "../../src/models/own-modules.js";
import { colourRows, smallConfig, withModelFolder } from "../facade/small.js";
import { goldenPath, relativeError } from "../golden.js";

const RANK = 4;
const ids = [[5, 17, 40, 8, 99, 3]];

/** The weight becomes W + U V: LoRA as one would write it by hand. */
class LowRankAdapter extends nn.Module {
  original: nn.LinearLike;
  U: nn.Parameter;
  V: nn.Parameter;

  constructor(original: nn.LinearLike, rank: number = RANK) {
    super();
    const { inFeatures, outFeatures, device = "cpu" } = original;
    this.original = original.setRequiresGrad(false);
    this.U = new nn.Parameter([outFeatures, rank], nn.zeros, "float32", device);
    this.V = new nn.Parameter([rank, inFeatures], nn.kaimingUniform(inFeatures), "float32", device).materialize();
  }

  forward(x: Tensor): Tensor {
    const { original, U, V } = this;
    if (original instanceof nn.Linear) return x.linear(original.weight.add(U.matmul(V)), original.bias);
    return original.forward(x).add(x.linear(V).linear(U)); // the same without a weight to add to
  }
}

/** Puts one in the place of every linear layer. */
function adapt(model: Model, start = 7): Model {
  seed(start);
  model.module.setRequiresGrad(false);
  for (const [name, module] of [...model.module.namedModules()])
    if (module instanceof nn.LinearLike && name !== model.module.headName)
      model.module.replace(name, new LowRankAdapter(module));
  return model;
}

const options = { epochs: 2, batch: 4, lr: 5e-3, seed: 3, progress: false } as const;

test("LoRA written by hand is the built-in LoRA: the same start, losses, gradients and result", async () => {
  for (const bits of [32, 4]) {
    await withModelFolder(async (folder) => {
      const make = (): Promise<Model> => {
        const plan = loadModel(folder, { weights: "random", seed: 1, device: "cpu", dtype: "float32" });
        return Promise.resolve(bits === 4 ? plan.quantize({ type: "nf4", compute: "float32" }) : plan);
      };
      using base = await make();
      const before = await base.logits(ids);
      using own = adapt(await make());
      assert.equal(relativeError(await own.logits(ids), before), 0, "U starts at zero");
      using builtIn = (await make()).addLora({ rank: RANK, alpha: RANK, target: "all-linear", seed: 7 });
      assert.equal(own.trainable().trainable, builtIn.trainable().trainable);
      const [one, two] = [await own.train(colourRows(24), options), await builtIn.train(colourRows(24), options)];
      const losses = (run: typeof one): number[] => [...run.history].map(({ loss }) => Number(loss));
      assert.equal(losses(one).length, 12);
      assert.ok(losses(one).at(-1)! < losses(one)[0]! - 0.5, String(losses(one)));
      assert.ok(relativeError(losses(one), losses(two)) < 1e-4, `${losses(one)} and ${losses(two)}`);
      assert.ok(relativeError(await own.logits(ids), await builtIn.logits(ids)) < 1e-3);
      const said = await builtIn.generate("The sea is", { maxNewTokens: 6 });
      assert.equal(await own.generate("The sea is", { maxNewTokens: 6 }), said);
    });
  }
});

test("parameters of one's own modules are saved and loaded by their names", async () => {
  await withModelFolder(async (folder) => {
    const file = join(folder, "own.safetensors");
    const load = (): PromiseLike<Model> => loadModel(folder, { weights: "random", seed: 1, device: "cpu" });
    using model = adapt(await load());
    await model.train(colourRows(16), options);
    await saveParameters(model.module, file);
    using other = adapt(await load(), 8);
    await loadParameters(other.module, file);
    assert.equal(relativeError(await other.logits(ids), await model.logits(ids)), 0);

    using plain = await load();
    await assert.rejects(loadParameters(plain.module, file), (error: Error) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(
        error.message,
        /own\.safetensors does not fit: .* not in it \(model\.embed_tokens\.weight, .*no such parameter \(.*down_proj\.U/,
      );
      return true;
    });
    plain.module.setRequiresGrad(false);
    await assert.rejects(saveParameters(plain.module, file), StateError);
    const narrow = await load();
    narrow.module.setRequiresGrad(false);
    for (const [name, module] of [...narrow.module.namedModules()])
      if (module instanceof nn.Linear) narrow.module.replace(name, new LowRankAdapter(module, 2));
    await assert.rejects(loadParameters(narrow.module, file), /q_proj\.U has the shape 64x4, here it is 64x2/);
    narrow.dispose();

    const { U } = model.module.module("model.layers.0.mlp.up_proj") as LowRankAdapter;
    const values = await U.data();
    U.set(values.map((v, i) => (i === 3 ? Number.NaN : v)));
    const bad = join(folder, "bad.safetensors");
    await assert.rejects(saveParameters(model.module, bad), /up_proj\.U holds NaN or infinity; it was not saved/);
    assert.ok(!existsSync(bad));
  });
});

test("what train writes of own modules is loaded again, and a run that was broken off goes on", async () => {
  await withModelFolder(async (folder) => {
    const load = (): PromiseLike<Model> => loadModel(folder, { weights: "random", seed: 1, device: "cpu" });
    using whole = adapt(await load());
    await whole.train(colourRows(24), { ...options, output: join(folder, "whole") });
    assert.ok(readdirSync(join(folder, "whole")).includes("parameters.safetensors"));
    assert.ok(!existsSync(join(folder, "whole", "model.safetensors")));
    using loaded = adapt(await load(), 99);
    await loadParameters(loaded.module, join(folder, "whole", "parameters.safetensors"));
    assert.equal(relativeError(await loaded.logits(ids), await whole.logits(ids)), 0);

    const output = join(folder, "parts");
    using first = adapt(await load());
    const run = first.train(colourRows(24), { ...options, output, saveEvery: 4 });
    for await (const { step } of run) if (step === 5) run.stop();
    using second = adapt(await load(), 99);
    await second.train(colourRows(24), { ...options, output, saveEvery: 4, resume: true });
    assert.equal(relativeError(await second.logits(ids), await whole.logits(ids)), 0);
  });
});

test("export refuses modules of one's own, and takes plain layers with what they have learned", async () => {
  await withModelFolder(async (folder) => {
    using model = adapt(await loadModel(folder, { weights: "random", seed: 1, device: "cpu" }));
    await model.train(colourRows(16), options);
    const learned = await model.logits(ids);
    const out = join(folder, "out");
    await assert.rejects(model.export(out), (error: Error) => {
      assert.ok(error instanceof StateError);
      assert.match(
        error.message,
        /export: 14 of .* the first is model\.layers\.0\.self_attn\.q_proj \(LowRankAdapter\)/,
      );
      return true;
    });
    await assert.rejects(model.save(out), /saveParameters/);
    for (const [name, module] of [...model.module.namedModules()]) {
      if (!(module instanceof LowRankAdapter) || !(module.original instanceof nn.Linear)) continue;
      const { original, U, V } = module;
      original.weight.adopt(noGrad(() => original.weight.add(U.matmul(V))));
      model.module.replace(name, original);
    }
    assert.ok(relativeError(await model.logits(ids), learned) < 1e-5);
    await model.export(out);
    using again = await loadModel(out, { device: "cpu" });
    assert.ok(relativeError(await again.logits(ids), learned) < 1e-5);
  });
});

test("what the library itself puts into models is not taken for somebody's own", async () => {
  const own = async (model: Model): Promise<number> => {
    try {
      return ownModules(model.module).length;
    } finally {
      model.dispose();
    }
  };
  const random = { weights: "random", device: "cpu" } as const;
  const untied = { ...smallConfig, tie_word_embeddings: false };
  assert.equal(await own(await loadModel(untied, random)), 0);
  assert.equal(await own(await loadModel(smallConfig, random).quantize({ type: "nf4" })), 0);
  const labels = ["a", "b"];
  assert.equal(await own(await loadModel(smallConfig, { ...random, task: "classification", labels })), 0);
  for (const name of ["chatglm", "gpt-bigcode", "gemma", "mistral"])
    assert.equal(await own(await loadModel(goldenPath(name), { device: "cpu" })), 0, name);
  const tied = await loadModel(smallConfig, random);
  tied.module.separateHead();
  tied.module.replace("model.norm", new Doubled());
  assert.deepEqual(
    ownModules(tied.module).map(([name, module]) => [name, module.constructor.name]),
    [["model.norm", "Doubled"]],
  );
  tied.dispose();
});

class Doubled extends nn.Module {
  scale: nn.Parameter = new nn.Parameter([1], (p) => void p.set(Float32Array.of(2)));

  forward(x: Tensor): Tensor {
    return x.mul(this.scale);
  }
}
