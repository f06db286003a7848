import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** A config of a Llama that trains in milliseconds, for the fixture tokenizer's vocabulary. */
export const smallConfig = {
  model_type: "llama",
  vocab_size: 340,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  tie_word_embeddings: true,
  rms_norm_eps: 1e-5,
  initializer_range: 0.1,
} as const;

/** Runs `use` with a folder that holds a config and a tokenizer; it is removed afterwards. */
export async function withModelFolder(
  use: (folder: string) => Promise<void>,
  config: object = smallConfig,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-model-"));
  try {
    await cp(fileURLToPath(new URL("../../../test/fixtures/hub/chatml", import.meta.url)), folder, { recursive: true });
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Rows that a small model can learn: the answer follows from the question. */
export function colourRows(count: number): { prompt: string; completion: string }[] {
  const facts = [
    ["sea", "blue"],
    ["grass", "green"],
    ["rose", "red"],
    ["coal", "black"],
  ] as const;
  return Array.from({ length: count }, (_, i) => {
    const [thing, colour] = facts[(i * 7 + (i >> 2)) % facts.length]!;
    return { prompt: `The ${thing} is`, completion: ` ${colour}` };
  });
}
