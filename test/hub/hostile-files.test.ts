/** Forty files of each format that nobody should trust, made by hand: each is refused by an error of the library's that names what is wrong. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { TunebookError } from "../../src/errors.js";
import { SafetensorsFile } from "../../src/hub/safetensors.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { goldenPath } from "../golden.js";
import { type FileTensor, ggufFile, type Pair, text, uint } from "./gguf-file.js";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-hostile-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** A case: what it is, the damage, what the message must say. */
type Case<T> = readonly [name: string, damage: T, message: RegExp];

async function refused(load: () => PromiseLike<unknown>, message: RegExp, name: string): Promise<void> {
  const begun = performance.now();
  await assert.rejects(
    async () => load(),
    (error: Error) => {
      assert.ok(error instanceof TunebookError, `${name}: ${error.stack}`);
      assert.match(error.message, message, name);
      assert.ok(error.message.length < 2000, `${name}: a message of ${error.message.length} characters`);
      return true;
    },
  );
  assert.ok(performance.now() - begun < 5000, `${name} took too long`);
}

const t = (dtype: unknown, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});
const F = (n: number) => t("F32", [n], 0, 4 * n);
const MAX = Number.MAX_SAFE_INTEGER;
const json = (header: unknown): string => (typeof header === "string" ? header : JSON.stringify(header));

interface Framed {
  header: unknown;
  data?: number;
  length?: bigint;
  raw?: Uint8Array;
}

const SAFETENSORS: readonly Case<Framed>[] = [
  ["an empty file", { header: "", raw: new Uint8Array(0) }, /has 0 bytes/],
  ["seven bytes", { header: "", raw: new Uint8Array(7) }, /has 7 bytes/],
  ["a length alone", { header: "" }, /not JSON|empty|too early/],
  ["a header of 2^63 bytes", { header: {}, length: 2n ** 63n }, /9223372036854775808 bytes/],
  ["a header of 2^64 - 1 bytes", { header: {}, length: 2n ** 64n - 1n }, /at most/],
  ["a header of 2^32 bytes", { header: {}, length: 2n ** 32n }, /at most/],
  ["a header just above the most", { header: {}, length: 26214401n }, /at most 26214400/],
  ["a header longer than the file", { header: {}, length: 100n }, /cut short/],
  ["a header that ends early", { header: '{"a":', length: 5n }, /too early/],
  ["a list", { header: [] }, /should be an object/],
  ["a number", { header: "1" }, /should be an object/],
  ["nothing but spaces", { header: "        " }, /too early/],
  ["text after the object", { header: "{}{}" }, /expected the end/],
  ["no UTF-8", { header: "", raw: Buffer.concat([uint(2, 8), Buffer.from([0xff, 0xfe])]) }, /not UTF-8/],
  ["a BOM before the object", { header: "\ufeff{}" }, /not JSON/],
  ["a comment", { header: "{/**/}" }, /not JSON/],
  ["NaN as a size", { header: '{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', data: 4 }, /not JSON/],
  ["nested a thousand deep", { header: `{"a":${"[".repeat(1000)}` }, /nested deeper/],
  ["the same name twice", { header: '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}' }, /appears twice/],
  ["a tensor that is null", { header: { a: null } }, /should be an object/],
  ["a tensor that is a list", { header: { a: [] } }, /should be an object/],
  ["no dtype", { header: { a: { shape: [1], data_offsets: [0, 4] } }, data: 4 }, /has the dtype nothing/],
  ["an unknown dtype", { header: { a: t("F33", [1], 0, 4) }, data: 4 }, /dtype "F33"/],
  ["a dtype of a prototype", { header: { a: t("__proto__", [1], 0, 4) }, data: 4 }, /dtype "__proto__"/],
  ["a dtype that is a list", { header: { a: t(["F32"], [1], 0, 4) }, data: 4 }, /dtype an array/],
  ["a shape that is a number", { header: { a: t("F32", 1, 0, 4) }, data: 4 }, /a list as its shape/],
  ["a negative size", { header: { a: t("F32", [-1], 0, 4) }, data: 4 }, /the size -1/],
  ["two negative sizes", { header: { a: t("F32", [-1, -1], 0, 4) }, data: 4 }, /the size -1/],
  ["a size with a fraction", { header: { a: t("F32", [0.5], 0, 2) }, data: 2 }, /the size 0.5/],
  ["sizes whose product is beyond 2^53", { header: { a: t("F32", [2 ** 27, 2 ** 27], 0, 4) }, data: 4 }, /2\^53/],
  ["sizes whose product wraps to a small one", { header: { a: t("U8", [2 ** 32, 2 ** 32], 0, 0) } }, /2\^53/],
  ["bytes beyond 2^53", { header: { a: t("F64", [2 ** 51], 0, 4) }, data: 4 }, /2\^53/],
  ["seventeen dimensions", { header: { a: t("F32", new Array(17).fill(1), 0, 4) }, data: 4 }, /17 dimensions/],
  ["one offset", { header: { a: { dtype: "F32", shape: [1], data_offsets: [0] } }, data: 4 }, /two whole numbers/],
  ["offsets backwards", { header: { a: t("F32", [1], 4, 0) }, data: 4 }, /hold -4/],
  ["an offset beyond 2^53", { header: `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,${MAX}0]}}` }, /beyond 2\^53/],
  ["an end far outside", { header: { a: t("U8", [2 ** 50], 0, 2 ** 50) }, data: 4 }, /cut short/],
  ["tensors that overlap", { header: { a: F(2), b: t("F32", [1], 4, 8) }, data: 8 }, /overlaps/],
  ["a gap between tensors", { header: { a: F(1), b: t("F32", [1], 8, 12) }, data: 12 }, /gap/],
  ["bytes after the last tensor", { header: { a: F(1) }, data: 5 }, /after its last tensor/],
  ["metadata that is no text", { header: { __metadata__: { a: {} } } }, /__metadata__/],
  ["a GGUF file", { header: "", raw: Buffer.from("GGUF\x03\0\0\0\0\0") }, /is a GGUF file/],
  [
    "a Git LFS pointer",
    { header: "", raw: Buffer.from("version https://git-lfs.github.com/spec/v1\n") },
    /LFS pointer/,
  ],
];

const NAME: Pair = ["general.architecture", 8, "llama"];
const LLAMA: Pair[] = [
  NAME,
  ["llama.block_count", 4, 1],
  ["llama.context_length", 4, 64],
  ["llama.embedding_length", 4, 8],
  ["llama.feed_forward_length", 4, 8],
  ["llama.attention.head_count", 4, 2],
  ["llama.attention.layer_norm_rms_epsilon", 6, 1e-5],
];
const zeros = (name: string, ...sizes: number[]): FileTensor => {
  const count = sizes.reduce((a, b) => a * b, 4);
  return { name, sizes, type: 0, data: new Uint8Array(count) };
};
const WEIGHTS: FileTensor[] = [
  zeros("token_embd.weight", 8, 4),
  zeros("output_norm.weight", 8),
  ...["attn_norm", "ffn_norm"].map((name) => zeros(`blk.0.${name}.weight`, 8)),
  ...["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].map((name) =>
    zeros(`blk.0.${name}.weight`, 8, 8),
  ),
];
const a = (changes: Partial<FileTensor> = {}): FileTensor => ({ ...zeros("a", 4, 2), ...changes });
const withPair = (...pairs: Pair[]) =>
  ggufFile([...LLAMA.filter(([key]) => !pairs.some(([k]) => k === key)), ...pairs], WEIGHTS);
const withTensors = (...tensors: FileTensor[]) =>
  ggufFile(LLAMA, [...WEIGHTS.filter(({ name }) => !tensors.some((other) => other.name === name)), ...tensors]);
const without = (name: string) =>
  ggufFile(
    LLAMA,
    WEIGHTS.filter((tensor) => tensor.name !== name),
  );
const head = (...parts: Uint8Array[]) => Buffer.concat([Buffer.from("GGUF"), uint(3, 4), ...parts]);

const GGUF: readonly Case<Uint8Array>[] = [
  ["an empty file", new Uint8Array(0), /cut short/],
  ["four bytes", Buffer.from("GGUF"), /cut short/],
  ["another magic", ggufFile([NAME], [], { magic: "GGML" }), /begin with "GGUF"/],
  ["version 1", ggufFile([NAME], [], { version: 1 }), /version 1/],
  ["version 2^32 - 1", ggufFile([NAME], [], { version: 2 ** 32 - 1 }), /version 4294967295/],
  ["big-endian", ggufFile([NAME], [], { version: 0x03000000 }), /big-endian/],
  ["2^62 tensors", ggufFile([NAME], [], { tensorCount: 2n ** 62n }), /beyond 2\^53/],
  ["2^40 tensors", ggufFile([NAME], [], { tensorCount: 2 ** 40 }), /room for at most/],
  ["2^64 - 1 pairs", ggufFile([NAME], [], { pairCount: 2n ** 64n - 1n }), /beyond 2\^53/],
  ["2^40 pairs", ggufFile([NAME], [], { pairCount: 2 ** 40 }), /room for at most/],
  ["a key of 2^40 bytes", head(uint(0, 8), uint(1, 8), uint(2 ** 40, 8), new Uint8Array(64)), /room for at most/],
  ["a key without letters", head(uint(0, 8), uint(1, 8), uint(0, 8), new Uint8Array(64)), /has 0 bytes/],
  [
    "a key that is no UTF-8",
    head(uint(0, 8), uint(1, 8), uint(2, 8), Buffer.from([0xff, 0xfe]), new Uint8Array(64)),
    /not UTF-8/,
  ],
  ["the same key twice", ggufFile([NAME, NAME], []), /appears twice/],
  [
    "an unknown kind of value",
    head(uint(0, 8), uint(1, 8), text("k"), uint(99, 4), new Uint8Array(64)),
    /unknown kind 99/,
  ],
  ["an array of arrays", head(uint(0, 8), uint(1, 8), text("k"), uint(9, 4), uint(9, 4), new Uint8Array(64)), /kind 9/],
  [
    "an array of 2^50",
    head(uint(0, 8), uint(1, 8), text("k"), uint(9, 4), uint(0, 4), uint(2 ** 50, 8), new Uint8Array(64)),
    /room for at most/,
  ],
  [
    "a string of 2^40",
    head(uint(0, 8), uint(1, 8), text("k"), uint(8, 4), uint(2 ** 40, 8), new Uint8Array(64)),
    /room for at most/,
  ],
  ["true that is 2", ggufFile([["x", 7, 2]], []), /true or false/],
  ["alignment 0", ggufFile([NAME, ["general.alignment", 4, 0]], []), /power of two/],
  ["alignment 2^31", ggufFile([NAME, ["general.alignment", 4, 2 ** 31]], []), /power of two/],
  ["alignment as a text", ggufFile([NAME, ["general.alignment", 8, "32"]], []), /power of two/],
  ["the same tensor twice", ggufFile([NAME], [a(), a()]), /appears twice/],
  ["five dimensions", ggufFile([NAME], [a({ sizes: [2, 1, 1, 1, 1] })]), /5 dimensions/],
  ["sizes beyond 2^53", ggufFile([NAME], [a({ sizes: [2n ** 63n, 2] })]), /2\^53/],
  ["sizes whose product wraps", ggufFile([NAME], [a({ sizes: [2 ** 32, 2 ** 32] })]), /2\^53/],
  ["a tensor far outside", ggufFile([NAME], [a({ sizes: [2 ** 40, 4] })]), /cut short/],
  ["an unknown type", ggufFile([NAME], [a({ type: 4096 })]), /unknown type 4096/],
  ["rows that are no blocks", ggufFile([NAME], [a({ type: 12 })]), /multiple of 256/],
  ["tensors that overlap", ggufFile([NAME], [a(), { ...a(), name: "b", offset: 0 }]), /overlaps/],
  ["a gap between tensors", ggufFile([NAME], [a(), { ...a(), name: "b", offset: 64 }]), /gap/],
  ["an offset of 2^63", ggufFile([NAME], [a({ offset: 2n ** 63n })]), /2\^53/],
  ["another architecture", withPair(["general.architecture", 8, "__proto__"]), /general\.architecture is "__proto__"/],
  ["2^31 layers", withPair(["llama.block_count", 4, 2 ** 31]), /block_count/],
  ["no layers", withPair(["llama.block_count", 4, 0]), /block_count/],
  ["2^31 heads", withPair(["llama.attention.head_count", 4, 2 ** 31]), /head|Q|key_length/],
  ["heads that do not divide", withPair(["llama.attention.head_count", 4, 3]), /head|Q|key_length/],
  ["a hidden size of 2^31", withPair(["llama.embedding_length", 4, 2 ** 31]), /embedding_length|head|hidden_size|Q/],
  ["layers of 2^40", withPair(["llama.feed_forward_length", 10, 2 ** 40]), /intermediate_size|feed_forward/],
  ["an epsilon that is a text", withPair(["llama.attention.layer_norm_rms_epsilon", 8, "1"]), /epsilon/],
  ["experts", withPair(["llama.expert_count", 4, 8]), /8 experts/],
  ["one part of many", withPair(["split.count", 2, 9]), /one of 9 parts/],
  ["no embedding", without("token_embd.weight"), /token_embd/],
  ["a missing matrix", without("blk.0.ffn_up.weight"), /up_proj\.weight/],
  ["a matrix too many", withTensors(zeros("blk.7.ffn_up.weight", 8, 8)), /no place in the model/],
  ["a matrix of another shape", withTensors(zeros("blk.0.ffn_up.weight", 8, 4)), /should have shape/],
  [
    "a type that is not restored",
    withTensors({ name: "blk.0.ffn_up.weight", sizes: [8, 8], type: 26, data: new Uint8Array(256) }),
    /is I32/,
  ],
];

const CONFIG = {
  model_type: "llama",
  vocab_size: 97,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
};
const but = (changes: object): string => JSON.stringify({ ...CONFIG, ...changes });
const rope = (scaling: unknown) => but({ rope_scaling: scaling });

const CONFIGS: readonly Case<string | Uint8Array>[] = [
  ["an empty file", "", /not JSON/],
  ["a list", "[]", /should hold a JSON object/],
  ["null", "null", /should hold a JSON object/],
  ["half an object", '{"model_type":', /not JSON/],
  ["an object twice", "{}{}", /not JSON/],
  ["nested a thousand deep", `{"a":${"[".repeat(1000)}`, /nested deeper/],
  ["the same name twice", '{"model_type":"llama","model_type":"qwen2"}', /appears twice/],
  ["a number beyond 2^53", '{"model_type":"llama","vocab_size":9007199254740993}', /beyond 2\^53/],
  ["a number too large", '{"model_type":"llama","rms_norm_eps":1e999}', /too large/],
  ["no model_type", "{}", /model_type/],
  ["an unknown model_type", but({ model_type: "mamba" }), /"mamba" is not supported/],
  ["a model_type of a prototype", '{"model_type":"__proto__"}', /"__proto__" is not supported/],
  ["a model_type like a function", but({ model_type: "constructor" }), /"constructor" is not supported/],
  ["a model_type that is a list", but({ model_type: ["llama"] }), /model_type/],
  ["2^31 layers", but({ num_hidden_layers: 2 ** 31 }), /num_hidden_layers.*at most/],
  ["no layers", but({ num_hidden_layers: 0 }), /num_hidden_layers/],
  ["layers less than none", but({ num_hidden_layers: -1 }), /num_hidden_layers/],
  ["half a layer", but({ num_hidden_layers: 1.5 }), /num_hidden_layers/],
  ["layers as a text", but({ num_hidden_layers: "2" }), /num_hidden_layers/],
  ["layers as an object", but({ num_hidden_layers: {} }), /num_hidden_layers/],
  ["a vocabulary of 2^40", but({ vocab_size: 2 ** 40 }), /vocab_size.*at most/],
  ["no vocabulary", but({ vocab_size: 0 }), /vocab_size/],
  ["a hidden size of 2^40", but({ hidden_size: 2 ** 40 }), /hidden_size.*at most/],
  ["a hidden size that is null", but({ hidden_size: null }), /hidden_size/],
  ["an inner size of 2^31", but({ intermediate_size: 2 ** 31 }), /intermediate_size.*at most/],
  ["heads that do not divide", but({ num_attention_heads: 5 }), /not a multiple/],
  ["no heads", but({ num_attention_heads: 0 }), /num_attention_heads/],
  ["2^40 heads", but({ num_attention_heads: 2 ** 40 }), /num_attention_heads/],
  ["key heads that do not divide", but({ num_key_value_heads: 3 }), /not a multiple/],
  ["a head of 2^40", but({ head_dim: 2 ** 40 }), /head_dim.*at most/],
  ["a head of odd size", but({ head_dim: 7 }), /even number/],
  ["2^53 positions", but({ max_position_embeddings: MAX }), /max_position_embeddings.*at most/],
  ["an epsilon that is a text", but({ rms_norm_eps: "1e-5" }), /rms_norm_eps/],
  ["a bias that is a number", but({ attention_bias: 1 }), /attention_bias/],
  ["tied that is a text", but({ tie_word_embeddings: "false" }), /tie_word_embeddings/],
  ["another activation", but({ hidden_act: "relu" }), /hidden_act/],
  ["an unknown rope scaling", rope({ type: "yarn", factor: 2 }), /rope type/],
  ["a rope scaling that is a list", rope([1]), /rope_scaling/],
  ["a rope scaling without a factor", rope({ type: "linear" }), /factor/],
  ["a rope factor that is a text", rope({ type: "linear", factor: "2" }), /factor/],
  ["no UTF-8", Buffer.from([0x7b, 0xff, 0x7d]), /not JSON/],
  ["another quantisation", but({ quantization_config: { quant_method: "gptq" } }), /"gptq"/],
  ["a quantisation that is a list", but({ quantization_config: [] }), /quantization_config/],
  ["end tokens that are texts", but({ eos_token_id: ["</s>"] }), /eos_token_id/],
  ["too large a file", " ".repeat(16 * 2 ** 20 + 1), /at most/],
];

type Edit = (config: Record<string, unknown>) => unknown;
const set =
  (changes: object): Edit =>
  (config) => ({ ...config, ...changes });
const ADAPTERS: readonly Case<Edit>[] = [
  ["a list", () => [], /should hold a JSON object/],
  ["null", () => null, /should hold a JSON object/],
  ["another method", set({ peft_type: "IA3" }), /"IA3" is not supported/],
  ["a method that is a list", set({ peft_type: ["LORA"] }), /peft_type/],
  ["no rank", ({ r: _, ...rest }) => rest, /"r" is missing/],
  ["a rank of 0", set({ r: 0 }), /"r" is 0/],
  ["a rank below 0", set({ r: -8 }), /"r" is -8/],
  ["a rank of 2^31", set({ r: 2 ** 31 }), /"r" is 2147483648/],
  ["half a rank", set({ r: 1.5 }), /"r" is 1.5/],
  ["a rank as a text", set({ r: "8" }), /"r" is "8"/],
  ["another rank than the file", set({ r: 65536, rank_pattern: {} }), /shape/],
  ["no alpha", ({ lora_alpha: _, ...rest }) => rest, /lora_alpha/],
  ["an alpha as a text", set({ lora_alpha: "16" }), /lora_alpha/],
  ["a dropout of 1", set({ lora_dropout: 1 }), /lora_dropout/],
  ["a dropout below 0", set({ lora_dropout: -0.1 }), /lora_dropout/],
  ["no targets", set({ target_modules: [] }), /target_modules/],
  ["targets that are numbers", set({ target_modules: [1, 2] }), /target_modules/],
  ["targets that are an object", set({ target_modules: {} }), /target_modules/],
  ["targets that are nowhere", set({ target_modules: ["nothing"] }), /nothing/],
  ["a pattern that is none", set({ target_modules: "(" }), /no pattern/],
  ["a pattern without an end", set({ target_modules: "(([a-z._0-9]+)+)+!" }), /takes too long/],
  ["a pattern of 3,000 characters", set({ target_modules: "x".repeat(3000) }), /3000 characters/],
  ["other layers than the file's", set({ target_modules: ["up_proj"] }), /tensor|lora_A/],
  ["layers that are texts", set({ layers_to_transform: ["0"] }), /layers_to_transform/],
  ["a layer below 0", set({ layers_to_transform: -1 }), /layers_to_transform/],
  ["layers that are not there", set({ layers_to_transform: [99] }), /layer|target/],
  ["a pattern of ranks that is a list", set({ rank_pattern: [1] }), /rank_pattern/],
  ["a rank of a pattern below 1", set({ rank_pattern: { q_proj: 0 } }), /q_proj/],
  ["a rank of a pattern of 2^40", set({ rank_pattern: { q_proj: 2 ** 40 } }), /q_proj/],
  ["patterns of ranks without an end", set({ rank_pattern: { "(([a-z._0-9]+)+)+!": 4 } }), /takes too long/],
  [
    "2,000 patterns of ranks",
    set({ rank_pattern: Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`x${i}`, 1])) }),
    /2000 patterns/,
  ],
  ["an alpha of a pattern as a text", set({ alpha_pattern: { q_proj: "1" } }), /q_proj/],
  ["an unknown bias", set({ bias: "some" }), /bias/],
  ["DoRA as a number", set({ use_dora: 1 }), /use_dora/],
  ["rsLoRA as a text", set({ use_rslora: "yes" }), /use_rslora/],
  ["turned matrices", set({ fan_in_fan_out: true }), /fan_in_fan_out/],
  ["replicated layers", set({ layer_replication: [[0, 2]] }), /layer_replication/],
  ["trained tokens", set({ trainable_token_indices: [1] }), /trainable_token_indices/],
  ["an unknown beginning", set({ init_lora_weights: "corda" }), /init_lora_weights/],
  ["LoftQ with 3 bits", set({ init_lora_weights: "loftq", loftq_config: { loftq_bits: 3 } }), /loftq_bits/],
  ["LoftQ with 2^31 rounds", set({ init_lora_weights: "loftq", loftq_config: { loftq_iter: 2 ** 31 } }), /loftq_iter/],
  ["modules that are not there", set({ modules_to_save: ["nowhere"] }), /nowhere/],
  ["a base that is a number", set({ base_model_name_or_path: 1 }), /base_model_name_or_path/],
  ["a pattern to exclude without an end", set({ exclude_modules: "(([a-z._0-9]+)+)+!" }), /takes too long/],
];

describe("files that nobody should trust", () => {
  it("there are forty of each format", () => {
    for (const cases of [SAFETENSORS, GGUF, CONFIGS, ADAPTERS]) {
      assert.ok(cases.length >= 40, `${cases.length}`);
      assert.equal(new Set(cases.map(([name]) => name)).size, cases.length);
    }
  });

  for (const [name, { header, data = 0, length, raw }, message] of SAFETENSORS) {
    it(`safetensors: ${name}`, async () => {
      const body = Buffer.from(json(header));
      const bytes = raw ?? Buffer.concat([uint(length ?? body.length, 8), body, Buffer.alloc(data)]);
      const path = join(folder, "hostile.safetensors");
      await writeFile(path, bytes);
      await refused(() => SafetensorsFile.open(path), message, name);
    });
  }

  it("GGUF: what is not damaged is loaded", async () => {
    const path = join(folder, "good.gguf");
    await writeFile(path, withPair());
    using model = await loadModel(path);
    assert.equal((await model.logits([[1]])).length, 4);
  });

  for (const [name, bytes, message] of GGUF) {
    it(`GGUF: ${name}`, async () => {
      const path = join(folder, "hostile.gguf");
      await writeFile(path, bytes);
      await refused(() => loadModel(path), message, name);
    });
  }

  for (const [name, content, message] of CONFIGS) {
    it(`config.json: ${name}`, async () => {
      await writeFile(join(folder, "config.json"), content);
      await refused(() => loadModel(folder, { weights: "none" }), message, name);
    });
  }

  describe("adapters", () => {
    let model: Model;
    before(async () => {
      model = await loadModel(goldenPath("llama-gqa"));
    });
    after(() => model.dispose());

    for (const [name, edit, message] of ADAPTERS) {
      it(`adapter files: ${name}`, async () => {
        const adapter = join(folder, "adapter");
        await cp(join(goldenPath("adapter-rslora"), "adapter"), adapter, { recursive: true });
        const path = join(adapter, "adapter_config.json");
        const config = JSON.parse(
          await readFile(join(goldenPath("adapter-rslora"), "adapter", "adapter_config.json"), "utf8"),
        );
        await writeFile(path, JSON.stringify(edit(config)));
        const parameters = model.parameters().length;
        await refused(() => model.loadAdapter(adapter), message, name);
        assert.equal(model.parameters().length, parameters, "the model is as it was");
      });
    }
  });
});
