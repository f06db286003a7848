/** The texts, the tokenizer and the shape of the embedded model: everything that its training starts from. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Random } from "../../src/data/random.js";
import { type Bpe, specialTokens, trainBpe } from "./tokenizer.js";
import { parrot } from "./world/chats.js";
import { plain, type Row, worldRows } from "./world.js";

/** Sizes and seeds; another value of any of these makes another model. */
export const recipe = {
  seed: 20,
  characters: 5_000_000,
  vocabulary: 1536,
  context: 512,
  /** Copying is learned first, from the parrot's rows alone; see train.ts. */
  copying: { steps: 2000, batch: 16, lr: 1e-3 },
  reading: { steps: 5000, batch: 8, lr: 2e-3 },
} as const;

/** Rows to train on, and rows of another seed that measure what was learned. */
export function corpus(): { train: Row[]; validation: Row[] } {
  const train = [...worldRows(recipe.seed, recipe.characters)];
  const known = new Set(train.map(plain));
  const validation = [...worldRows(recipe.seed + 1, recipe.characters / 50)].filter((row) => !known.has(plain(row)));
  return { train, validation };
}

/** Rows that ask for nothing but repeating what was said, no two alike. */
export function parrotRows(): Row[] {
  const random = new Random(recipe.seed + 2);
  return Array.from({ length: recipe.copying.steps * recipe.copying.batch }, () => ({ messages: parrot(random) }));
}

/** The tokenizer of the training rows. */
export function vocabulary(rows: readonly Row[]): Bpe {
  return trainBpe(rows.map(plain), recipe.vocabulary);
}

/** config.json of the embedded model. Every linear layer's sizes are multiples of 64, so that NF4 blocks are whole rows. */
export function config(): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: recipe.vocabulary,
    hidden_size: 192,
    intermediate_size: 512,
    num_hidden_layers: 5,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 32,
    max_position_embeddings: recipe.context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: true,
    attention_bias: false,
    mlp_bias: false,
    initializer_range: 0.05,
    bos_token_id: specialTokens.indexOf("<|begin|>"),
    eos_token_id: specialTokens.indexOf("<|end|>"),
    pad_token_id: specialTokens.indexOf("<|pad|>"),
    dtype: "float32",
  };
}

/** Folder of this project in the sources, also from the compiled file in dist/notebooks/embedded. */
export const root: string = (() => {
  let url = new URL("./", import.meta.url);
  for (let i = 0; i < 8; i++, url = new URL("../", url)) {
    const name = readName(new URL("package.json", url));
    if (name === "tunebook") return fileURLToPath(url);
  }
  throw new Error("The folder of the package tunebook was not found above the compiled files.");
})();

function readName(url: URL): string | undefined {
  try {
    return (JSON.parse(readFileSync(url, "utf8")) as { name?: string }).name;
  } catch {
    return undefined;
  }
}
