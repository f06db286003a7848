/** The tensors of a GGUF file under the names and in the order of a checkpoint in Hugging Face's layout. */
import { CheckpointError } from "../errors.js";
import type { ConfigFields } from "./config.js";
import type { GgufFile } from "./gguf.js";
import { missingTensor } from "./tensor-file.js";
import type { WeightBlocks, WeightEntry, WeightPlace, WeightSource } from "./weight-source.js";

const WHOLE: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const IN_BLOCK: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
// What follows from the config, or was taken into it.
const DERIVED: ReadonlySet<string> = new Set(["rope_freqs.weight"]);

// Matrices of these are handed on in their blocks, of so many elements.
const BLOCK_DTYPES: ReadonlyMap<string, number> = new Map([
  ["Q8_0", 32],
  ["Q4_0", 32],
  ["Q4_1", 32],
  ["Q5_0", 32],
  ["Q4_K", 256],
  ["Q5_K", 256],
  ["Q6_K", 256],
]);

/** The checkpoint's name of a tensor; a name that is not known stays as it is. */
export function checkpointName(name: string): string {
  const match = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name);
  if (match === null) return name;
  const [, block, part, kind] = match as unknown as [string, string | undefined, string, string];
  const names = block === undefined ? WHOLE : IN_BLOCK;
  if (!Object.hasOwn(names, part)) return name;
  return `${block === undefined ? "" : `model.layers.${block}.`}${names[part]}.${kind}`;
}

/** The name of a checkpoint's tensor in a GGUF file, or undefined where there is none. */
export function ggufName(name: string): string | undefined {
  const match = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name);
  if (match === null) return undefined;
  const [, block, part, kind] = match as unknown as [string, string | undefined, string, string];
  const found = Object.entries(block === undefined ? WHOLE : IN_BLOCK).find(([, module]) => module === part);
  return found && `${block === undefined ? "" : `blk.${block}.`}${found[0]}.${kind}`;
}

/**
 * Puts the rows of Q or K back into Hugging Face's order. llama.cpp rotates neighbouring pairs, so its files hold the rows of a head as
 * 0, half, 1, half + 1, …; rotating halves needs 0, 1, …, half - 1, half, ….
 *
 * @param columns Elements of a row; 1 for a bias.
 */
export function restoreRowOrder(data: Float32Array, heads: number, columns: number): Float32Array {
  const out = data.slice();
  const headDim = data.length / columns / heads;
  for (let row = 0; row < heads * headDim; row++) {
    const inHead = row % headDim;
    const to = row - inHead + (inHead % 2) * (headDim / 2) + (inHead >> 1);
    out.set(data.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return out;
}

/** The inverse of {@link restoreRowOrder}: rows of Q or K as llama.cpp's files hold them. */
export function pairRowOrder(data: Float32Array, heads: number, columns: number): Float32Array {
  const out = new Float32Array(data.length);
  const headDim = data.length / columns / heads;
  for (let row = 0; row < heads * headDim; row++) {
    const inHead = row % headDim;
    const from = row - inHead + (inHead % 2) * (headDim / 2) + (inHead >> 1);
    out.set(data.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return out;
}

/** A GGUF file as a source of weights. */
export class GgufWeights implements WeightSource {
  readonly where: string;
  readonly described = "its metadata";
  readonly #file: GgufFile;
  readonly #config: ConfigFields;
  readonly #names: ReadonlyMap<string, string>;

  /** @param config What `ggufConfig` made of the file. */
  constructor(file: GgufFile, config: ConfigFields) {
    this.where = file.path;
    this.#file = file;
    this.#config = config;
    const used = file.names().filter((name) => !DERIVED.has(name));
    this.#names = new Map(used.map((name) => [checkpointName(name), name]));
    if (this.#names.size !== used.length)
      throw new CheckpointError(`${file.path}: two of its tensors have the same name in a checkpoint.`);
  }

  names(): string[] {
    return [...this.#names.keys()];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  entry(name: string): WeightEntry {
    return this.#file.entry(this.#name(name));
  }

  locate(name: string): WeightPlace | undefined {
    const { dtype, offset, bytes } = this.#file.entry(this.#name(name));
    if (!["F32", "F16", "BF16"].includes(dtype) || this.#rotatedHeads(name) !== undefined) return undefined;
    return { fd: this.#file.fd, path: this.where, offset, bytes };
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const data = await this.#file.readFloat32(this.#name(name));
    const heads = this.#rotatedHeads(name);
    return heads === undefined ? data : restoreRowOrder(data, heads, data.length / this.entry(name).shape[0]!);
  }

  locateBlocks(name: string): WeightBlocks | undefined {
    const { dtype, shape, offset, bytes } = this.#file.entry(this.#name(name));
    const elements = BLOCK_DTYPES.get(dtype);
    if (elements === undefined || shape.length !== 2 || shape[1]! % elements !== 0) return undefined;
    const heads = this.#rotatedHeads(name);
    const headRows = heads === undefined ? 0 : shape[0]! / heads;
    return { fd: this.#file.fd, path: this.where, offset, bytes, format: dtype, headRows };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // Heads of a tensor whose rows stand in llama.cpp's order: Q and K.
  #rotatedHeads(name: string): number | undefined {
    const source = this.#name(name);
    const part = /\.attn_([qk])\./.exec(source)?.[1];
    if (part === undefined) return undefined;
    const heads = this.#config.integer(part === "q" ? "num_attention_heads" : "num_key_value_heads");
    const rows = this.entry(name).shape[0]!;
    if (rows % (2 * heads) !== 0)
      throw new CheckpointError(`${this.where}: ${source} has ${rows} rows, expected a multiple of ${2 * heads}.`);
    return heads;
  }

  #name(name: string): string {
    const found = this.#names.get(name);
    if (found === undefined) throw missingTensor(name, this.where, this.#names.keys());
    return found;
  }
}
