/** The tensors of a GGUF file under the names and in the order of a checkpoint in Hugging Face's layout. */
import { CheckpointError } from "../errors.js";
import type { ConfigFields } from "./config.js";
import type { GgufFile } from "./gguf.js";
import { checkpointName, formOf, type GgufForm } from "./gguf-forms.js";
import { missingTensor } from "./tensor-file.js";
import type { WeightBlocks, WeightEntry, WeightPlace, WeightSource } from "./weight-source.js";

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
  readonly #form: GgufForm;
  /** The tensor of each name, or those whose rows follow one another in it. */
  readonly #names: ReadonlyMap<string, readonly string[]>;

  /** @param config What `ggufConfig` made of the file. */
  constructor(file: GgufFile, config: ConfigFields) {
    this.where = file.path;
    this.#file = file;
    this.#config = config;
    this.#form = formOf(config.string("model_type"))!;
    const used = file.names().filter((name) => !DERIVED.has(name));
    const names = new Map<string, readonly string[]>();
    for (const parts of joinedParts(this.#form, used)) {
      const name = checkpointName(this.#form, parts.length > 1 ? wholeOf(this.#form, parts[0]!) : parts[0]!);
      if (names.has(name))
        throw new CheckpointError(`${file.path}: two of its tensors have the same name in a checkpoint.`);
      names.set(name, parts);
    }
    this.#names = names;
  }

  names(): string[] {
    return [...this.#names.keys()];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  entry(name: string): WeightEntry {
    const parts = this.#sources(name).map((source) => this.#file.entry(source));
    if (parts.length === 1) return parts[0]!;
    const sum = (of: (part: WeightEntry) => number): number => parts.reduce((n, part) => n + of(part), 0);
    const [, ...row] = parts[0]!.shape;
    return {
      shape: [sum(({ shape }) => shape[0] ?? 0), ...row],
      dtype: `${[...new Set(parts.map(({ dtype }) => dtype))].join(" and ")} in parts`,
      bytes: sum(({ bytes }) => bytes),
    };
  }

  locate(name: string): WeightPlace | undefined {
    const [source, ...more] = this.#sources(name);
    const { dtype, offset, bytes } = this.#file.entry(source!);
    if (!["F32", "F16", "BF16"].includes(dtype) || more.length > 0 || this.#isChanged(source!)) return undefined;
    return { fd: this.#file.fd, path: this.where, offset, bytes };
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const parts: Float32Array[] = [];
    for (const source of this.#sources(name)) parts.push(await this.#file.readFloat32(source));
    const source = this.#sources(name)[0]!;
    const data = parts.length === 1 ? parts[0]! : concatenated(parts);
    if (isOffset(this.#form, source)) return data.map((value) => value - this.#form.normOffset);
    const heads = this.#rotatedHeads(source);
    return heads === undefined ? data : restoreRowOrder(data, heads, data.length / this.entry(name).shape[0]!);
  }

  locateBlocks(name: string): WeightBlocks | undefined {
    const [source, ...more] = this.#sources(name);
    const { dtype, shape, offset, bytes } = this.#file.entry(source!);
    const elements = BLOCK_DTYPES.get(dtype);
    if (elements === undefined || more.length > 0 || shape.length !== 2 || shape[1]! % elements !== 0) return undefined;
    const heads = this.#rotatedHeads(source!);
    const headRows = heads === undefined ? 0 : shape[0]! / heads;
    return { fd: this.#file.fd, path: this.where, offset, bytes, format: dtype, headRows };
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // Whether a tensor's numbers or their order are others than the checkpoint's.
  #isChanged(source: string): boolean {
    return isOffset(this.#form, source) || this.#rotatedHeads(source) !== undefined;
  }

  // Heads of a tensor whose rows stand in llama.cpp's order: Q and K.
  #rotatedHeads(source: string): number | undefined {
    const count = pairedHeads(this.#form, source);
    if (count === undefined) return undefined;
    const heads = this.#config.integer(this.#form.counts[count]!);
    const rows = this.#file.entry(source).shape[0]!;
    if (rows % (2 * heads) !== 0)
      throw new CheckpointError(`${this.where}: ${source} has ${rows} rows, expected a multiple of ${2 * heads}.`);
    return heads;
  }

  #sources(name: string): readonly string[] {
    const found = this.#names.get(name);
    if (found === undefined) throw missingTensor(name, this.where, this.#names.keys());
    return found;
  }
}

/** Whose heads a tensor's rows are, where the file holds them in pairs. @param name in the file */
export function pairedHeads(form: GgufForm, name: string): "heads" | "kvHeads" | undefined {
  const part = form.paired ? /\.attn_([qk])\./.exec(name)?.[1] : undefined;
  return part === undefined ? undefined : part === "q" ? "heads" : "kvHeads";
}

/** Whether the file holds more in a tensor than the checkpoint does. @param name in the file */
export function isOffset(form: GgufForm, name: string): boolean {
  return form.normOffset !== 0 && /(^|[._])(attn|ffn|output)_norm\.weight$/.test(name);
}

/** Tensors, one by one or all that make one of a checkpoint. */
function joinedParts(form: GgufForm, names: readonly string[]): (readonly string[])[] {
  const groups = Object.values(form.joined ?? {});
  const there = new Set(names);
  const found: (readonly string[])[] = [];
  for (const name of names) {
    const [, block, part, kind] = /^(blk\.\d+)\.(\w+)\.(\w+)$/.exec(name) ?? [];
    const group = part === undefined ? undefined : groups.find((parts) => parts.includes(part));
    const parts = group?.map((each) => `${block}.${each}.${kind}`);
    if (parts === undefined || !parts.every((each) => there.has(each))) found.push([name]);
    else if (name === parts[0]) found.push(parts);
  }
  return found;
}

// The name that the parts of a tensor would have together.
function wholeOf(form: GgufForm, first: string): string {
  const [whole, [part]] = Object.entries(form.joined!).find(([, parts]) => first.includes(`.${parts[0]}.`))! as [
    string,
    [string],
  ];
  return first.replace(`.${part}.`, `.${whole}.`);
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
