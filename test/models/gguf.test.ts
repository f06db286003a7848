/** Models from GGUF files: small golden ones, and the real SmolLM2 where it is at hand. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError, ConfigError } from "../../src/errors.js";
import { GgufFile } from "../../src/hub/gguf.js";
import { ggufConfig } from "../../src/hub/gguf-config.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { loadModel } from "../../src/plan.js";
import { goldenArrays, goldenFloats, goldenValues, relativeError } from "../golden.js";
import { type FileTensor, ggufFile, type Pair } from "../hub/gguf-file.js";

const fixtures = new URL("../../../test/fixtures/hub/gguf/", import.meta.url);
const shared: string = process.env.TUNEBOOK_SHARED ?? join(import.meta.dirname, "../../../../shared");
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

const smol = join(shared, "models", "smollm2-135m-instruct");
const skip: string | false = existsSync(smol)
  ? false
  : `no real model in ${smol} (TUNEBOOK_SHARED names another place)`;

describe("SmolLM2 from its GGUF file", { skip }, () => {
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
