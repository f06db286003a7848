/** Models from GGUF files: small golden ones, and the real SmolLM2 where it is at hand. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError, ConfigError } from "../../src/errors.js";
import { GgufFile } from "../../src/hub/gguf.js";
import { ggufConfig } from "../../src/hub/gguf-config.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { loadModel } from "../../src/plan.js";
import { trainLoop } from "../../src/training/loop.js";
import { trainSettings } from "../../src/training/options.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";
import { type FileTensor, ggufFile, type Pair } from "../hub/gguf-file.js";
import { shared } from "../shared.js";

// Numbers from 0 to 1, the same each time.
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
}

const fixtures = new URL("../../../test/fixtures/hub/gguf/", import.meta.url);
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-gguf-"));
});
after(() => rm(folder, { recursive: true, force: true }));

const LLAMA: Pair[] = [
  ["general.architecture", 8, "llama"],
  ["llama.block_count", 4, 1],
  ["llama.context_length", 4, 64],
  ["llama.embedding_length", 4, 128],
  ["llama.feed_forward_length", 4, 32],
  ["llama.attention.head_count", 4, 2],
  ["llama.attention.layer_norm_rms_epsilon", 6, 1e-5],
  ["llama.rope.freq_base", 6, 500000],
];
const EMBEDDING: FileTensor = {
  name: "token_embd.weight",
  sizes: [128, 3],
  type: 0,
  data: new Uint8Array(128 * 3 * 4),
};

const QUERY: FileTensor = {
  name: "blk.0.attn_q.weight",
  sizes: [32, 128],
  type: 0,
  data: new Uint8Array(128 * 32 * 4),
};

async function config(pairs: Pair[], tensors: FileTensor[] = [EMBEDDING, QUERY]): Promise<Record<string, unknown>> {
  const path = join(folder, "config.gguf");
  await writeFile(path, ggufFile(pairs, tensors));
  await using file = await GgufFile.open(path);
  return { ...(await ggufConfig(file)).values };
}

describe("models from GGUF", () => {
  for (const name of ["llama-gqa", "llama-bias"]) {
    it(`${name}: logits agree with transformers`, async () => {
      using model = await loadModel(new URL(`${name}.gguf`, fixtures).pathname);
      const arrays = goldenArrays(`${name}/golden`);
      for (const [i, ids] of goldenValues(`${name}/golden`).sequences.entries()) {
        const logits = await model.logits([ids]);
        const error = relativeError(logits, goldenFloats(arrays, `logits.${i}`));
        assert.ok(error < 1e-5, `sequence ${i}: relative error ${error}`);
      }
    });
  }

  it("quantises while it streams in", async () => {
    using model = await loadModel(new URL("llama-gqa.gguf", fixtures).pathname).quantize({ type: "nf4" });
    const memory = model.memory();
    using whole = await loadModel(new URL("llama-gqa.gguf", fixtures).pathname);
    assert.ok(memory.weights < whole.memory().weights);
    await assert.rejects(async () => model.tokenizer, /tokenizer\.ggml\.model/);
  });

  it("writes the metadata as a config, with the rope scaling of Llama 3 from its divisors", async () => {
    const plain = await config([
      ...LLAMA,
      ["tokenizer.ggml.eos_token_id", 4, 1],
      ["tokenizer.ggml.eot_token_id", 4, 2],
    ]);
    assert.equal(plain.rms_norm_eps, 1e-5);
    assert.equal(plain.rope_theta, 500000);
    assert.equal(plain.head_dim, 64);
    assert.equal(plain.num_key_value_heads, 2);
    assert.equal(plain.vocab_size, 3);
    assert.equal(plain.tie_word_embeddings, true);
    assert.deepEqual(plain.eos_token_id, [1, 2]);
    assert.equal(plain.rope_scaling, undefined);
    const linear: Pair[] = [
      ["llama.rope.scaling.type", 8, "linear"],
      ["llama.rope.scaling.factor", 6, 4],
    ];
    assert.deepEqual(
      { ...((await config([...LLAMA, ...linear])).rope_scaling as object) },
      { rope_type: "linear", factor: 4 },
    );
    // The divisors that llama.cpp's converter writes for Llama 3.2: between the two wavelengths they are interpolated.
    const divisors = Float32Array.from({ length: 32 }, (_, i) => {
      const wavelength = 2 * Math.PI * 500000 ** ((2 * i) / 64);
      if (wavelength < 8192 / 4) return 1;
      if (wavelength > 8192 / 1) return 32;
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      return 1 / ((1 - smooth) / 32 + smooth);
    });
    const factors = (data: Float32Array): FileTensor[] => [
      EMBEDDING,
      QUERY,
      { name: "rope_freqs.weight", sizes: [32], type: 0, data: new Uint8Array(data.buffer) },
    ];
    assert.deepEqual(
      { ...((await config(LLAMA, factors(divisors))).rope_scaling as object) },
      {
        rope_type: "llama3",
        factor: 32,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      },
    );
    await assert.rejects(config(LLAMA, factors(divisors.map((d) => d * d))), ConfigError);
  });

  it("refuses what such a model cannot say", async () => {
    const without = (key: string) => LLAMA.filter(([name]) => name !== key);
    await assert.rejects(config([["general.architecture", 8, "mamba"]]), /"mamba", expected "llama"/);
    await assert.rejects(config(without("llama.block_count")), /block_count" is missing/);
    await assert.rejects(config([...LLAMA, ["llama.expert_count", 4, 8]]), /8 experts/);
    await assert.rejects(config([...LLAMA, ["split.count", 2, 3]]), /one of 3 parts/);
    await assert.rejects(config([...LLAMA, ["llama.rope.scaling.type", 8, "yarn"]]), /"none" or "linear"/);
    await assert.rejects(config([...LLAMA, ["llama.rope.dimension_count", 4, 32]]), /dimension_count/);
    const large = LLAMA.map((pair): Pair => (pair[0] === "llama.block_count" ? [pair[0], 4, 2 ** 31] : pair));
    await assert.rejects(config(large), /block_count" is 2147483648/);
    await assert.rejects(config([...LLAMA, ["llama.attention.key_length", 4, 2 ** 31]]), /the 128 rows of Q/);
    await assert.rejects(config([...LLAMA, ["llama.vocab", 10, 2n ** 60n]], [QUERY]), CheckpointError);
    await writeFile(join(folder, "missing.gguf"), ggufFile(LLAMA, [EMBEDDING, QUERY]));
    await assert.rejects(
      async () => loadModel(join(folder, "missing.gguf")),
      /tensors that the config asks for are missing/,
    );
    await assert.rejects(async () => loadModel(folder), /GGUF files .*give the path of one/);
  });
});

/** A whole small model: a projection of each type of block, the embedding Q8_0 and also the output layer. */
function blockModel(): { pairs: Pair[]; tensors: FileTensor[] } {
  const pairs = LLAMA.map((pair): Pair => (pair[0] === "llama.feed_forward_length" ? [pair[0], 4, 64] : pair));
  const draw = random(5);
  const types = { F32: 0, Q4_0: 2, Q4_1: 3, Q8_0: 8 } as const;
  const make = (name: string, rows: number, cols: number, type: keyof typeof types): FileTensor => {
    const blockBytes = { F32: 128, Q4_0: 18, Q4_1: 20, Q8_0: 34 }[type];
    const data = new Uint8Array((rows * cols * blockBytes) / 32);
    if (type === "F32") new Float32Array(data.buffer).fill(1);
    else {
      for (let i = 0; i < data.length; i++) data[i] = draw() * 256;
      const view = new DataView(data.buffer);
      for (let at = 0; at < data.length; at += blockBytes) {
        view.setUint16(at, type === "Q8_0" ? 0x0c00 + draw() * 99 : 0x2000 + draw() * 99, true); // about 2^-12 and 2^-7
        if (type === "Q4_1") view.setUint16(at + 2, 0xab00 + draw() * 99, true); // about -2^-4
      }
    }
    return { name: `${name}.weight`, sizes: rows === 1 ? [cols] : [cols, rows], type: types[type], data };
  };
  const tensors = [
    make("token_embd", 40, 128, "Q8_0"),
    make("blk.0.attn_norm", 1, 128, "F32"),
    make("blk.0.attn_q", 128, 128, "Q4_1"),
    make("blk.0.attn_k", 128, 128, "Q4_0"),
    make("blk.0.attn_v", 128, 128, "Q8_0"),
    make("blk.0.attn_output", 128, 128, "Q4_0"),
    make("blk.0.ffn_norm", 1, 128, "F32"),
    make("blk.0.ffn_gate", 64, 128, "Q4_1"),
    make("blk.0.ffn_up", 64, 128, "Q8_0"),
    make("blk.0.ffn_down", 128, 64, "Q4_1"),
    make("output_norm", 1, 128, "F32"),
  ];
  return { pairs, tensors };
}

describe("models kept in a file's blocks", () => {
  let path: string;
  before(async () => {
    path = join(await mkdtemp(join(tmpdir(), "tunebook-blocks-")), "blocks.gguf");
    const { pairs, tensors } = blockModel();
    await writeFile(path, ggufFile(pairs, tensors));
  });
  after(() => rm(dirname(path), { recursive: true, force: true }));

  it("gives the logits of the restored model, and takes the memory of the file", async () => {
    using packed = await loadModel(path, { dtype: "packed" });
    using restored = await loadModel(path, { dtype: "float32" });
    const few = [[3, 1, 4]]; // a few rows are multiplied as they are
    const many = [Array.from({ length: 30 }, (_, i) => (i * 7) % 40)]; // more of them in bfloat16
    assert.ok(relativeError(await packed.logits(few), await restored.logits(few)) < 1e-5);
    assert.ok(relativeError(await packed.logits(many), await restored.logits(many)) < 2e-2);
    assert.ok(packed.memory().weights * 5 < restored.memory().weights);
    assert.deepEqual(
      new Set(packed.parameters().map(({ dtype }) => dtype)),
      new Set(["q8_0", "q4_0", "q4_1", "float32"]),
    );
  });

  it("is frozen and trains adapters as the restored model does", async () => {
    const losses: number[][] = [];
    for (const dtype of ["packed", "bfloat16"] as const) {
      using model = await loadModel(path, { dtype }).addLora({ rank: 4, target: "all-linear", seed: 1 });
      const ids = Int32Array.from({ length: 24 }, (_, i) => (i * 11) % 40);
      const steps = trainLoop({
        model: model.module,
        train: [{ ids, labels: ids }],
        settings: trainSettings({ steps: 8, batch: 1, lr: 1e-2, schedule: "constant" }),
      });
      const seen: number[] = [];
      for await (const step of steps) seen.push(step.loss);
      losses.push(seen);
    }
    assert.ok(losses[0]!.at(-1)! < losses[0]![0]! - 0.1, `losses ${losses[0]}`);
    losses[0]!.forEach((loss, i) => {
      assert.ok(Math.abs(loss / losses[1]![i]! - 1) < 0.02, `step ${i}: ${loss} and ${losses[1]![i]}`);
    });
  });

  it("is planned without its weights", async () => {
    const peaks: number[] = [];
    for (const weights of ["none", undefined] as const) {
      const load = loadModel(path, { dtype: "packed", ...(weights ? { weights } : {}) });
      using model = await load.addLora({ rank: 4, target: "all-linear" });
      peaks.push(model.estimate({ batch: 2, length: 16 }).peak);
    }
    assert.equal(peaks[0], peaks[1]);
  });

  it("keeps the embedding packed beside quantised layers, and is merged and exported restored", async () => {
    using model = await loadModel(path, { dtype: "packed" }).quantize({ type: "nf4" });
    assert.deepEqual(new Set(model.parameters().map(({ dtype }) => dtype)), new Set(["q8_0", "nf4", "float32"]));
    using packed = await loadModel(path, { dtype: "packed" });
    await packed.export(join(dirname(path), "out"));
    using again = await loadModel(join(dirname(path), "out"));
    const ids = [[3, 1, 4]];
    assert.ok(relativeError(await again.logits(ids), await packed.logits(ids)) < 1e-5);
  });

  it("says what it is for where there are no blocks", async () => {
    const whole = new URL("llama-gqa.gguf", fixtures).pathname;
    await assert.rejects(async () => loadModel(whole, { dtype: "packed" }), /keeps blocks of Q8_0, Q4_0 or Q4_1/);
    await assert.rejects(
      async () => loadModel({ model_type: "llama" }, { dtype: "packed", weights: "none" }),
      /\.gguf/,
    );
  });
});

const smol = join(shared, "models", "smollm2-135m-instruct");
const skip: string | false = existsSync(smol)
  ? false
  : `no real model in ${smol} (TUNEBOOK_SHARED names another place)`;

describe("SmolLM2 from its GGUF file", { skip }, () => {
  it("writes the golden texts with its blocks kept packed", async () => {
    using model = await loadModel(smol, { dtype: "packed" });
    for (const { prompt, greedy_text: text } of JSON.parse(await readFile(join(smol, "golden_greedy.json"), "utf8")))
      assert.equal(await model.generate(prompt, { maxNewTokens: 20, temperature: 0 }), text);
  });

  it("has the published tokenizer and chat template, and writes the golden texts word for word", async () => {
    const model = await loadModel(smol);
    const { tokenizer } = model;
    const published = await Tokenizer.fromFolder(join(shared, "tokenizers", "smollm2"));
    assert.equal(tokenizer.chatTemplate, published.chatTemplate);
    for (const key of ["bosId", "eosId", "padId", "vocabSize"] as const) assert.equal(tokenizer[key], published[key]);
    for (let id = 0; id < published.vocabSize; id++) {
      assert.equal(tokenizer.tokenOf(id), published.tokenOf(id));
      assert.equal(tokenizer.isSpecial(id), published.isSpecial(id));
    }
    for (const { prompt, prompt_ids: ids, greedy_text: text } of JSON.parse(
      await readFile(join(smol, "golden_greedy.json"), "utf8"),
    )) {
      assert.deepEqual(tokenizer.encode(prompt), ids);
      assert.equal(await model.generate(prompt, { maxNewTokens: 20, temperature: 0 }), text);
    }
    model.dispose();
  });
});
