/** Models written as GGUF files and read again; quantisers beside the gguf package's. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ConfigError, StateError } from "../../src/errors.js";
import { GgufFile } from "../../src/hub/gguf.js";
import { restoreBlocks } from "../../src/hub/gguf-blocks.js";
import { packBlocks } from "../../src/hub/gguf-quantize.js";
import { ggufTokenizer } from "../../src/hub/gguf-tokenizer.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { Model } from "../../src/model.js";
import type { GgufDType } from "../../src/models/export-options.js";
import { loadModel } from "../../src/plan.js";
import { tensor } from "../../src/tensor/tensor.js";
import { goldenArrays, goldenFloats, goldenPath, relativeError } from "../golden.js";
import { shared } from "../shared.js";

const hub = new URL("../../../test/fixtures/hub/", import.meta.url).pathname;
const root = new URL("../../../", import.meta.url).pathname;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-export-"));
});
after(() => rm(folder, { recursive: true, force: true }));

// Random numbers of about the normal distribution, the same each time.
function normal(count: number, seed: number): Float32Array {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
  return Float32Array.from({ length: count }, () => uniform() + uniform() + uniform() + uniform() - 2);
}

/** Root mean square of what packing changes, relative to the numbers. */
function rounding(dtype: string, values: Float32Array): number {
  const restored = restoreBlocks(dtype, packBlocks(dtype, values), values.length)!;
  const sum = (f: (v: number, i: number) => number): number => values.reduce((n, v, i) => n + f(v, i), 0);
  return Math.sqrt(sum((v, i) => (v - restored[i]!) ** 2) / sum((v) => v * v));
}

describe("packing numbers into blocks", () => {
  const arrays = goldenArrays("gguf-blocks");
  for (const dtype of ["Q8_0", "Q4_0", "Q5_0"]) {
    it(`${dtype} has the bytes of the gguf package`, () => {
      const got = packBlocks(dtype, goldenFloats(arrays, "input"));
      assert.deepEqual(got, arrays.get(`${dtype}.quantized`)!.data);
    });
  }

  it("K-quants are closer than blocks of as many bits with one scale, and keep zeros, constants and either sign", () => {
    const values = normal(256 * 64, 3);
    assert.ok(rounding("Q4_K", values) < 0.9 * rounding("Q4_0", values), `${rounding("Q4_K", values)}`);
    assert.ok(rounding("Q5_K", values) < 0.6 * rounding("Q4_K", values), `${rounding("Q5_K", values)}`);
    assert.ok(rounding("Q6_K", values) < 0.6 * rounding("Q5_0", values), `${rounding("Q6_K", values)}`);
    for (const dtype of ["Q4_K", "Q5_K", "Q6_K"]) {
      const zeros = new Float32Array(512);
      assert.ok(restoreBlocks(dtype, packBlocks(dtype, zeros), 512)!.every((v) => v === 0));
      for (const value of [0.25, -0.25, 1e-2, -3e3]) {
        const constant = new Float32Array(256).fill(value);
        assert.ok(rounding(dtype, constant) < 0.04, `${dtype} of ${value}: ${rounding(dtype, constant)}`);
      }
      const positive = normal(256 * 8, 4).map(Math.abs);
      assert.ok(rounding(dtype, positive) < 0.1);
      assert.ok(
        rounding(
          dtype,
          positive.map((v) => -v),
        ) < 0.1,
      );
      const mixed = normal(256 * 8, 5).map((v, i) => v * 10 ** ((i >> 5) % 4)); // parts of very different sizes
      assert.ok(rounding(dtype, mixed) < 0.1);
    }
  });
});

/** Rows of ids below a vocabulary. */
const rows = (vocab: number): number[][] => [
  [3, 1, 4, 1, 5],
  Array.from({ length: 20 }, (_, i) => (i * 7 + 2) % vocab),
];

async function exported(model: Model, dtype: GgufDType, name: string): Promise<string> {
  const out = join(folder, name);
  await model.export(out, { format: "gguf", dtype });
  const files = await readdir(out);
  assert.equal(files.length, 1, `only the file: ${files}`);
  assert.match(files[0]!, new RegExp(`-${dtype}\\.gguf$`));
  return join(out, files[0]!);
}

describe("a model as a GGUF file", () => {
  for (const name of ["llama-gqa", "llama-bias"]) {
    for (const [dtype, limit] of [
      ["F32", 1e-6],
      ["F16", 1e-3],
      ["BF16", 1e-2],
      ["Q8_0", 3e-2], // its weights are large on purpose, so that rounding shows
    ] as const) {
      it(`${name} in ${dtype}: its logits, loaded again`, async () => {
        using model = await loadModel(goldenPath(name));
        using again = await loadModel(await exported(model, dtype, `${name}-${dtype}`), { dtype: "float32" });
        const error = relativeError(await again.logits(rows(97)), await model.logits(rows(97)));
        assert.ok(error < limit, `relative error ${error}`);
      });
    }
  }

  // Tied, Llama 3.1's rope scaling, rows of whole blocks of 256 here and of 32 there.
  const CONFIG = {
    model_type: "llama",
    vocab_size: 340,
    hidden_size: 256,
    intermediate_size: 416,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 16384,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    rope_theta: 500000,
    rope_scaling: {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    },
  };

  for (const [dtype, limit, types] of [
    ["F16", 1e-3, ["F16", "F32"]],
    // Random weights have no structure that rounding would leave alone: errors of four layers add up.
    ["Q8_0", 2e-2, ["F32", "Q8_0"]],
    ["Q4_0", 0.3, ["F32", "Q4_0", "Q6_K"]],
    ["Q4_K_M", 0.2, ["F32", "Q4_K", "Q5_0", "Q6_K", "Q8_0"]],
  ] as const) {
    it(`${dtype}: tied, with Llama 3.1's rope scaling, tokenizer and template`, async () => {
      using random = await loadModel(CONFIG, { weights: "random", seed: 5 });
      const network = random.module;
      const tokenizer = await Tokenizer.fromFolder(join(hub, "chatml"));
      const model = new Model({ network, tokenizer, generation: { eosIds: [2, 0] }, base: "", name: "a/b" });
      const path = await exported(model, dtype, `tied-${dtype}`);
      assert.match(path, /model-/, "a name that is no file name is not used");
      await using file = await GgufFile.open(path);
      assert.deepEqual([...new Set(file.names().map((name) => file.entry(name).dtype))].sort(), types);
      assert.equal(file.metadata.get("tokenizer.ggml.eot_token_id"), 0);
      using again = await loadModel(path, { dtype: "float32" });
      const error = relativeError(await again.logits(rows(340)), await model.logits(rows(340)));
      assert.ok(error < limit, `relative error ${error}`);
      assert.ok(error > 1e-7);
      assert.deepEqual(again.stopIds().sort(), [0, 2]);
      assert.equal(again.tokenizer.chatTemplate, tokenizer.chatTemplate);
      const text = "The sun 123 rose, ünder <|im_end|> it.";
      assert.deepEqual(again.tokenizer.encode(text), tokenizer.encode(text));
    });
  }

  it("quantised and packed models are written as they compute", async () => {
    using model = await loadModel(goldenPath("llama-gqa")).quantize({ type: "nf4" });
    using again = await loadModel(await exported(model, "F32", "nf4"), { dtype: "float32" });
    assert.ok(relativeError(await again.logits(rows(97)), await model.logits(rows(97))) < 1e-5);
    const q8 = await exported(model, "Q8_0", "q8");
    using packed = await loadModel(q8, { dtype: "packed" });
    using restored = await loadModel(q8, { dtype: "float32" });
    using twice = await loadModel(await exported(restored, "Q8_0", "q8-twice"), { dtype: "float32" });
    assert.ok(relativeError(await twice.logits(rows(97)), await restored.logits(rows(97))) < 1e-3);
    const first = await exported(packed, "Q8_0", "q8-again");
    // Codes and scales of a quantised tensor are found again.
    assert.deepEqual((await readFile(first)).subarray(-4096), (await readFile(q8)).subarray(-4096));
  });

  it("tokenizers of both kinds come back as they were", async () => {
    for (const kind of ["llama", "chatml"]) {
      using random = await loadModel({ ...CONFIG, vocab_size: 352 }, { weights: "random" });
      const tokenizer = await Tokenizer.fromFolder(join(hub, kind));
      const more = tokenizer.withTokens(["<|tool|>"]).withTokens(["<|user_defined|>"], kind === "llama");
      const model = new Model({ network: random.module, tokenizer: more, generation: undefined, base: "", name: kind });
      await using file = await GgufFile.open(await exported(model, "Q8_0", `tokens-${kind}`));
      const again = ggufTokenizer(file);
      for (const text of [
        "",
        " two  spaces",
        "naïve 日本 \n\n x",
        "The sunlight in 2024",
        "a<|tool|> b<|user_defined|>c<s></s>",
        "\t<0x41>",
      ]) {
        assert.deepEqual(again.encode(text), more.encode(text), `${kind}: ${JSON.stringify(text)}`);
        assert.equal(again.decode(again.encode(text)), more.decode(more.encode(text)));
      }
      for (const key of ["bosId", "eosId", "padId"] as const) assert.equal(again[key], more[key]);
      assert.equal(again.tokenOf(351), "[PAD351]");
    }
  });

  it("refuses what cannot be written, and leaves no file", async () => {
    using model = await loadModel(goldenPath("llama-gqa"));
    const out = join(folder, "refused");
    await assert.rejects(model.export(out, { format: "gguf", dtype: "Q3_K" as never }), ConfigError);
    await assert.rejects(model.export(out, { format: "ggml" as never }), /"safetensors" or "gguf"/);
    using scaled = await loadModel(goldenPath("llama-scaled"));
    await assert.rejects(scaled.export(out, { format: "gguf" }), /rope scaling "llama3" with other numbers/);
    const norm = [...model.module.namedParameters()].find(([name]) => name === "model.norm.weight")![1];
    norm.adopt(tensor(new Float32Array(norm.size).fill(Number.NaN), norm.shape));
    await assert.rejects(model.export(out, { format: "gguf" }), /model\.norm\.weight holds NaN/);
    assert.deepEqual(await readdir(out), []);
    model.addLora({ rank: 2 });
    await assert.rejects(model.export(out, { format: "gguf" }), StateError);
  });
});

const smol = join(shared, "models", "smollm2-135m-instruct");
const llamaCpp = join(root, ".cache", "llama-cpp");
const skip: string | false = !existsSync(smol)
  ? `no real model in ${smol} (TUNEBOOK_SHARED names another place)`
  : !existsSync(join(llamaCpp, "node_modules"))
    ? "node-llama-cpp is not installed: npm run bench -- decode does so"
    : false;

describe("SmolLM2 exported, in llama.cpp", { skip }, () => {
  // Where weights are in blocks llama.cpp rounds activations to 8 bits too, of which this model has very large ones: after the golden chat prompts it
  // says something else even from the published file. So blocks are compared after plain prompts.
  for (const [dtype, count] of [
    ["F16", 32],
    ["Q8_0", 20],
    ["Q4_K_M", 3],
  ] as const) {
    it(`${dtype}: llama.cpp says the same greedy text`, async () => {
      using model = await loadModel(smol, { dtype: "float32" });
      const path = await exported(model, dtype, `smol-${dtype}`);
      using again = await loadModel(path, { dtype: "float32" });
      const golden: { prompt: string }[] = JSON.parse(await readFile(join(smol, "golden_greedy.json"), "utf8"));
      const plain = ["The capital of Japan is", "The capital of France is", "Once upon a time"];
      const prompts = dtype === "F16" ? [...plain, ...golden.map(({ prompt }) => prompt)] : plain;
      const request = JSON.stringify({ path, prompts, count });
      const worker = join(root, "scripts", "bench", "llama-cpp-text.mjs");
      const options = { encoding: "utf8", timeout: 120_000 } as const;
      const { stdout, stderr, status } = spawnSync(process.execPath, [worker, llamaCpp, request], options);
      assert.equal(status, 0, stderr);
      const texts = JSON.parse(stdout) as string[];
      for (const [i, prompt] of prompts.entries())
        assert.equal(texts[i], await again.generate(prompt, { maxNewTokens: count, temperature: 0 }), prompt);
      await rm(path);
    });
  }
});
