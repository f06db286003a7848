import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { CausalLM } from "./causal.js";
import { ChatGLMForConditionalGeneration, chatglmConfig } from "./chatglm.js";
import { GemmaForCausalLM, gemmaConfig } from "./gemma.js";
import { GPTBigCodeForCausalLM, gptBigcodeConfig } from "./gpt-bigcode.js";
import { LlamaForCausalLM, llamaConfig } from "./llama.js";
import { MistralForCausalLM, mistralConfig } from "./mistral.js";
import { Qwen2ForCausalLM, qwen2Config } from "./qwen2.js";
import { Qwen2VLForConditionalGeneration, qwen2VLConfig } from "./qwen2-vl.js";
import { Qwen3ForCausalLM, qwen3Config } from "./qwen3.js";

/** Makes a model, without memory for its weights, from the fields of its config.json. One line an architecture, by `model_type`. */
const ARCHITECTURES: Readonly<Record<string, (config: ConfigFields) => CausalLM>> = {
  chatglm: (c) => new ChatGLMForConditionalGeneration(chatglmConfig(c)),
  gemma: (c) => new GemmaForCausalLM(gemmaConfig(c)),
  gpt_bigcode: (c) => new GPTBigCodeForCausalLM(gptBigcodeConfig(c)),
  llama: (c) => new LlamaForCausalLM(llamaConfig(c)),
  mistral: (c) => new MistralForCausalLM(mistralConfig(c)),
  qwen2: (c) => new Qwen2ForCausalLM(qwen2Config(c)),
  qwen2_vl: (c) => new Qwen2VLForConditionalGeneration(qwen2VLConfig(c)),
  qwen3: (c) => new Qwen3ForCausalLM(qwen3Config(c)),
};

/**
 * The largest sizes that a config may give, under the names that architectures give them: a model is made, without memory for its weights, before they
 * are compared with a file's.
 */
const LARGEST: readonly (readonly [limit: number, names: readonly string[]])[] = [
  [1024, ["num_hidden_layers", "num_layers", "n_layer"]],
  [
    2 ** 16,
    ["num_attention_heads", "num_key_value_heads", "multi_query_group_num", "n_head", "head_dim", "kv_channels"],
  ],
  [2 ** 20, ["hidden_size", "n_embd", "intermediate_size", "ffn_hidden_size", "n_inner"]],
  [2 ** 24, ["vocab_size", "padded_vocab_size", "max_position_embeddings", "seq_length", "n_positions"]],
];

function checkSizes(config: ConfigFields): void {
  for (const [limit, names] of LARGEST)
    for (const name of names) {
      const value = config.get(name);
      if (typeof value === "number" && value > limit) throw config.wrong(name, `at most ${limit}`);
    }
}

/** The model that a config describes. @throws ConfigError for an unknown `model_type`, naming the known ones. */
export function createModel(config: ConfigFields): CausalLM {
  const type = config.string("model_type", { default: "llama" });
  const make = Object.hasOwn(ARCHITECTURES, type) ? ARCHITECTURES[type] : undefined;
  if (!make) {
    throw new ConfigError(
      `${config.where}: model_type "${type}" is not supported; supported are ${Object.keys(ARCHITECTURES).join(", ")}.`,
    );
  }
  checkSizes(config);
  return make(config);
}
