/** Every architecture from and to GGUF files: those that the gguf package wrote, and our own. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ConfigError } from "../../src/errors.js";
import { GgufFile } from "../../src/hub/gguf.js";
import { restoreBlocks } from "../../src/hub/gguf-blocks.js";
import { checkpointName, formOf, GGUF_FORMS, ggufName } from "../../src/hub/gguf-forms.js";
import { packBlocks } from "../../src/hub/gguf-quantize.js";
import type { Model } from "../../src/model.js";
import type { GgufDType } from "../../src/models/export-options.js";
import { loadModel } from "../../src/plan.js";
import { goldenArrays, goldenFloats, goldenPath, goldenValues, relativeError } from "../golden.js";
import { ggufFile, type Pair } from "../hub/gguf-file.js";
import { characters, WIDE, wideModel } from "./gguf-models.js";

const fixtures = new URL("../../../test/fixtures/hub/gguf/", import.meta.url).pathname;
const quiet = { progress: false } as const;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-gguf-"));
});
after(() => rm(folder, { recursive: true, force: true }));

let count = 0;
async function exported(model: Model, dtype: GgufDType): Promise<string> {
  const out = join(folder, String(count++));
  await model.export(out, { format: "gguf", dtype });
  const [name, ...others] = await readdir(out);
  assert.deepEqual(others, []);
  return join(out, name!);
}

// By golden folder: the model_type that the file gives.
const GOLDEN = ["mistral", "qwen2", "qwen3", "gemma", "gpt-bigcode", "chatglm", "chatglm-parts"] as const;

describe("files that the gguf package wrote", () => {
  for (const name of GOLDEN) {
    it(`${name}: logits agree with the reference`, async () => {
      const golden = name.replace("-parts", "");
      using model = await loadModel(join(fixtures, `${name}.gguf`), quiet);
      assert.equal(model.config.modelType, golden.replace("-", "_"));
      const arrays = goldenArrays(`${golden}/golden`);
      for (const [i, ids] of goldenValues(`${golden}/golden`).sequences.entries()) {
        const error = relativeError(await model.logits([ids]), goldenFloats(arrays, `logits.${i}`));
        assert.ok(error < 1e-5, `sequence ${i}: relative error ${error}`);
      }
    });
  }

  for (const name of ["mistral", "qwen2", "qwen3", "gemma", "gpt-bigcode"]) {
    it(`${name}: ours has the same tensors, byte for byte, and the same numbers in its metadata`, async () => {
      using model = await loadModel(goldenPath(name), quiet);
      await using ours = await GgufFile.open(await exported(model, "F32"));
      await using theirs = await GgufFile.open(join(fixtures, `${name}.gguf`));
      assert.deepEqual(ours.names().sort(), theirs.names().sort());
      for (const tensor of theirs.names()) {
        assert.deepEqual(ours.entry(tensor).shape, theirs.entry(tensor).shape, tensor);
        assert.deepEqual(await ours.read(tensor), await theirs.read(tensor), tensor);
      }
      for (const [key, value] of theirs.metadata) assert.equal(ours.metadata.get(key), value, key);
    });
  }

  it("adapters train on them, and they are quantised while they stream in", async () => {
    using model = await loadModel(join(fixtures, "chatglm-parts.gguf"), quiet)
      .quantize({ type: "nf4" })
      .addLora({ rank: 2 });
    assert.ok(model.parameters().some(({ name }) => name.includes("query_key_value.lora_A")));
  });
});

const rows = (vocab: number): number[][] => [
  [3, 1, 4, 1, 5],
  Array.from({ length: 40 }, (_, i) => (i * 7 + 2) % vocab),
];

describe("exported and loaded again", () => {
  for (const type of Object.keys(WIDE)) {
    it(`${type}: logits in F32, F16, BF16 and in blocks`, async () => {
      using model = await wideModel(type, characters(340));
      const wanted = await model.logits(rows(340));
      const fused = type === "gpt_bigcode" || type === "chatglm";
      for (const [dtype, types] of [
        ["F32", ["F32"]],
        ["F16", ["F16", "F32"]],
        ["BF16", ["BF16", "F32"]],
        ["Q8_0", ["F32", "Q8_0"]],
        ["Q4_0", ["F32", "Q4_0", "Q6_K"]],
        ["Q4_K_M", ["F32", "Q4_K", ...(fused ? ["Q5_K"] : []), "Q6_K"]],
      ] as const) {
        const path = await exported(model, dtype);
        await using file = await GgufFile.open(path);
        assert.deepEqual([...new Set(file.names().map((name) => file.entry(name).dtype))].sort(), types);
        using again = await loadModel(path, { ...quiet, dtype: "float32" });
        assert.equal(again.config.modelType, type);
        const got = await again.logits(rows(340));
        // Blocks lie along rows: whatever the rows' order in the file, each is rounded as it is alone.
        using rounded = await wideModel(type, characters(340), (name, values) => {
          const { dtype: held } = file.entry(ggufName(formOf(type)!, name)!);
          return restoreBlocks(held, packBlocks(held, values), values.length)!;
        });
        const error = relativeError(got, await rounded.logits(rows(340)));
        assert.ok(error < 1e-5, `${dtype}: relative error ${error}`);
        assert.equal(relativeError(got, wanted) < 1e-5, dtype === "F32");
        if (dtype === "Q8_0" || dtype === "Q4_0") {
          using packed = await loadModel(path, { ...quiet, dtype: "packed" });
          assert.ok(packed.memory().weights < again.memory().weights / 2);
          assert.ok(packed.parameters().some((p) => p.dtype === dtype.toLowerCase()));
          const few = [[3, 1, 4]]; // few rows are multiplied in 32 bits
          assert.ok(relativeError(await packed.logits(few), await again.logits(few)) < 1e-5);
        }
        await rm(path);
      }
    });
  }

  it("what a file has no field for survives: an exact GELU, a window, none, a tied head, a ratio", async () => {
    using starcoder = await loadModel({ ...WIDE.gpt_bigcode, activation_function: "gelu" }, { weights: "random" });
    using exact = await loadModel(await exported(starcoder, "F32"), quiet);
    assert.ok(relativeError(await exact.logits(rows(340)), await starcoder.logits(rows(340))) < 1e-6);
    using untied = await loadModel({ ...WIDE.gpt_bigcode, tie_word_embeddings: false }, { weights: "random" });
    using apart = await loadModel(await exported(untied, "F32"), quiet);
    assert.ok(relativeError(await apart.logits(rows(340)), await untied.logits(rows(340))) < 1e-6);
    const long = [Array.from({ length: 200 }, (_, i) => (i * 11) % 340)];
    for (const window of [96, null]) {
      using mistral = await loadModel({ ...WIDE.mistral, sliding_window: window }, { weights: "random" });
      using again = await loadModel(await exported(mistral, "F32"), quiet);
      assert.equal(again.config.modelType, window === null ? "llama" : "mistral");
      assert.ok(relativeError(await again.logits(long), await mistral.logits(long)) < 1e-6);
    }
  });

  it("every name has its way there and back", () => {
    for (const form of GGUF_FORMS) {
      const names = [...Object.keys(form.whole), ...Object.keys(form.inBlock).map((part) => `blk.12.${part}`)];
      for (const name of names) {
        const there = checkpointName(form, `${name}.weight`);
        assert.notEqual(there, `${name}.weight`);
        assert.equal(ggufName(form, there), `${name}.weight`, form.modelType);
      }
      assert.equal(ggufName(form, "model.extra.weight"), undefined);
      assert.equal(ggufName(form, `${form.blocks}.x.weight`), undefined);
    }
  });
});

describe("what a GGUF file cannot say", () => {
  it("is refused, with the reason, and leaves no file", async () => {
    const out = join(folder, "refused");
    const refused = async (config: Readonly<Record<string, unknown>>, message: RegExp): Promise<void> => {
      using model = await loadModel(config, { weights: "random", ...quiet });
      await assert.rejects(
        async () => model.export(out, { format: "gguf" }),
        (error: Error) => error instanceof ConfigError && message.test(error.message),
      );
      await assert.rejects(readdir(out), /ENOENT/);
    };
    const llama3 = {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    };
    await refused({ ...WIDE.qwen2, rope_scaling: llama3 }, /rope scaling "llama3" of the type "qwen2"/);
    const window = { use_sliding_window: true, sliding_window: 8, max_window_layers: 1 };
    await refused({ ...WIDE.qwen2, ...window }, /sliding window in some of the layers/);
    await refused({ ...WIDE.qwen3, attention_bias: true }, /attention_bias/);
    await refused({ ...WIDE.gemma, tie_word_embeddings: false }, /not its table/);
    await refused({ ...WIDE.gpt_bigcode, multi_query: false }, /multi_query: false/);
    await refused({ ...WIDE.gpt_bigcode, scale_attn_weights: false }, /scale_attn_weights: false/);
    await refused({ ...WIDE.chatglm, add_bias_linear: true }, /add_bias_linear/);
    await refused({ ...WIDE.chatglm, kv_channels: 128 }, /kv_channels/);
    const { config } = await loadModel(goldenPath("qwen2-vl"), { weights: "none", ...quiet });
    await refused(config.raw, /type "qwen2_vl" are not written.*comes in two parts/);
  });

  it("reading says what such a file is, and what to do", async () => {
    const path = join(folder, "other.gguf");
    const read = async (pairs: Pair[], message: RegExp): Promise<void> => {
      await writeFile(path, ggufFile(pairs, []));
      await assert.rejects(async () => loadModel(path, quiet), message);
    };
    await read(
      [["general.architecture", 8, "qwen2vl"]],
      /Qwen2-VL without its eyes.*mmproj.*load the model from its folder/,
    );
    await read([["general.architecture", 8, "clip"]], /mmproj file\)\. Such pairs are not read/);
    await read([["general.architecture", 8, "mamba"]], /"mamba", expected "llama", .* or "chatglm"/);
  });

  it("keys that do not fit the architecture are named", async () => {
    const path = join(folder, "heads.gguf");
    const starcoder: Pair[] = [
      ["general.architecture", 8, "starcoder"],
      ["starcoder.block_count", 4, 1],
      ["starcoder.context_length", 4, 8],
      ["starcoder.embedding_length", 4, 32],
      ["starcoder.feed_forward_length", 4, 32],
      ["starcoder.attention.head_count", 4, 4],
      ["starcoder.attention.head_count_kv", 4, 4],
      ["starcoder.attention.layer_norm_epsilon", 6, 1e-5],
    ];
    const tensor = (name: string, rows: number) => ({
      name,
      sizes: [32, rows],
      type: 0,
      data: new Uint8Array(32 * rows * 4),
    });
    const tensors = [tensor("token_embd.weight", 5), tensor("blk.0.attn_qkv.weight", 96)];
    await writeFile(path, ggufFile(starcoder, tensors));
    await assert.rejects(async () => loadModel(path, quiet), /head_count_kv" is 4 .* share one of keys and values/);
    await writeFile(path, ggufFile(starcoder.toSpliced(6, 1, ["starcoder.attention.head_count_kv", 4, 1]), tensors));
    await assert.rejects(async () => loadModel(path, quiet), /share the 96 rows of Q, K and V/);
  });
});
