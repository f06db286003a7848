/** Small models of every architecture that stands in GGUF files, for the tests of those files. */
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { noGrad } from "../../src/tensor/record.js";
import { outsideScope } from "../../src/tensor/scope.js";
import { tensor } from "../../src/tensor/tensor.js";

const COMMON = {
  vocab_size: 340,
  hidden_size: 256,
  intermediate_size: 512,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  initializer_range: 0.05,
};

/** Configs whose rows are whole blocks of 256. */
export const WIDE: Readonly<Record<string, Record<string, unknown>>> = {
  llama: { ...COMMON, model_type: "llama" },
  mistral: { ...COMMON, model_type: "mistral", sliding_window: 96 },
  qwen2: { ...COMMON, model_type: "qwen2", tie_word_embeddings: true, rope_theta: 1e6 },
  qwen3: { ...COMMON, model_type: "qwen3", head_dim: 128 },
  gemma: { ...COMMON, model_type: "gemma", head_dim: 128, num_key_value_heads: 1 },
  gpt_bigcode: {
    model_type: "gpt_bigcode",
    vocab_size: 340,
    n_embd: 256,
    n_inner: 512,
    n_layer: 2,
    n_head: 4,
    n_positions: 512,
    initializer_range: 0.05,
  },
  chatglm: {
    model_type: "chatglm",
    padded_vocab_size: 340,
    hidden_size: 256,
    ffn_hidden_size: 512,
    num_layers: 2,
    num_attention_heads: 4,
    kv_channels: 64,
    multi_query_group_num: 2,
    multi_query_attention: true,
    seq_length: 512,
    add_qkv_bias: true,
    rope_ratio: 50,
  },
};

/** A random model of {@link WIDE} whose answers differ from token to token, with a tokenizer; `change` gets each weight. */
export async function wideModel(
  type: string,
  tokenizer: Tokenizer,
  change: (name: string, values: Float32Array) => Float32Array = (_, values) => values,
  more: object = {},
): Promise<Model> {
  const random = await loadModel({ ...WIDE[type]!, ...more }, { weights: "random", seed: 7, progress: false });
  for (const [name, parameter] of random.module.namedParameters()) {
    // Biases and norms are all alike at first, and ChatGLM's weights very small.
    const values = Float32Array.from((await parameter.data()) as Float32Array);
    const small = type === "chatglm" && values.length > 1024 ? 2.5 : 1;
    for (let i = 0; i < values.length; i++)
      values[i] = values.length > 1024 ? values[i]! * small : values[i]! + 0.1 * Math.sin(i * 1.7 + name.length);
    parameter.adopt(outsideScope(() => noGrad(() => tensor(change(name, values), parameter.shape))));
  }
  return new Model({ network: random.module, tokenizer, generation: undefined, base: "", name: type });
}

/** A byte-level tokenizer of so many tokens, each a character but the last two, which begin and end texts. */
export function characters(count: number): Tokenizer {
  const spelled = Array.from({ length: count - 2 }, (_, i) => String.fromCodePoint(i < 94 ? 33 + i : 0x100 + i - 94));
  const vocab = Object.fromEntries([...spelled, "<s>", "</s>"].map((token, id) => [token, id]));
  const special = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
  const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return Tokenizer.fromJson(
    {
      version: "1.0",
      added_tokens: ["<s>", "</s>"].map((content) => ({ id: vocab[content]!, content, ...special })),
      normalizer: null,
      pre_tokenizer: bytes,
      post_processor: null,
      decoder: bytes,
      model: { type: "BPE", vocab, merges: [], ignore_merges: false, byte_fallback: false, fuse_unk: false },
    },
    { bos_token: "<s>", eos_token: "</s>" },
  );
}
