/** A model's weights in a folder: one `model.safetensors`, or shards named by `model.safetensors.index.json`. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.js";
import { readFields } from "./config.js";
import { describe, type Json } from "./json.js";
import { safeJoin } from "./path.js";
import { convertPickle, PICKLE_REASON, PICKLED, SafetensorsFile, type TensorEntry } from "./safetensors.js";
import { missingTensor } from "./tensor-file.js";
import type { WeightPlace, WeightSource } from "./weight-source.js";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** All tensors of a folder by name, read one at a time from whichever shard holds them. */
export class SafetensorsFolder implements WeightSource {
  readonly folder: string;
  readonly described = "config.json";
  readonly #files: readonly SafetensorsFile[];
  readonly #holder: ReadonlyMap<string, SafetensorsFile>;

  private constructor(folder: string, files: readonly SafetensorsFile[], holder: ReadonlyMap<string, SafetensorsFile>) {
    this.folder = folder;
    this.#files = files;
    this.#holder = holder;
  }

  /**
   * Opens every shard of a folder and checks its header; no weights are read yet. A single file wins over an index, as in transformers.
   *
   * @throws CheckpointError when there are no safetensors, a shard is missing, or an index names a tensor that its shard does not have.
   */
  static async open(folder: string): Promise<SafetensorsFolder> {
    const present = await list(folder);
    if (present.includes(SINGLE)) {
      const file = await SafetensorsFile.open(join(folder, SINGLE));
      return new SafetensorsFolder(folder, [file], new Map(file.names().map((name) => [name, file])));
    }
    if (present.includes(INDEX)) return SafetensorsFolder.#openIndex(folder);
    throw noWeights(folder, present);
  }

  static async #openIndex(folder: string): Promise<SafetensorsFolder> {
    const path = join(folder, INDEX);
    const map = await readWeightMap(path);
    const files = new Map<string, SafetensorsFile>();
    const holder = new Map<string, SafetensorsFile>();
    try {
      for (const [name, shard] of map) {
        let file = files.get(shard);
        if (file === undefined) {
          file = await SafetensorsFile.open(
            safeJoin(folder, shard, (reason) => badShard(path, reason), { bare: true }),
          );
          files.set(shard, file);
        }
        if (!file.has(name))
          throw new CheckpointError(
            `${path} says that ${shard} holds ${describe(name)}, but it does not. Fetch both again.`,
          );
        holder.set(name, file);
      }
    } catch (error) {
      await Promise.all([...files.values()].map((file) => file.close()));
      throw error;
    }
    return new SafetensorsFolder(folder, [...files.values()], holder);
  }

  get where(): string {
    return this.folder;
  }

  /** The tensors' names. */
  names(): string[] {
    return [...this.#holder.keys()];
  }

  /** True when a tensor of that name is there. */
  has(name: string): boolean {
    return this.#holder.has(name);
  }

  /** Shape, dtype and size of a tensor. @throws CheckpointError when there is none of that name. */
  entry(name: string): TensorEntry {
    return this.#file(name).entry(name);
  }

  /** Where a tensor of floats stands in its shard. */
  locate(name: string): WeightPlace | undefined {
    const file = this.#file(name);
    return ["F32", "F16", "BF16"].includes(file.entry(name).dtype) ? file.locate(name) : undefined;
  }

  /** See {@link SafetensorsFile.read}. */
  read(name: string): Promise<Uint8Array> {
    return this.#file(name).read(name);
  }

  /** See {@link SafetensorsFile.readInto}. */
  readInto(name: string, target: Uint8Array, from = 0): Promise<void> {
    return this.#file(name).readInto(name, target, from);
  }

  /** See {@link SafetensorsFile.readFloat32}. */
  readFloat32(name: string): Promise<Float32Array> {
    return this.#file(name).readFloat32(name);
  }

  /** Closes all shards. */
  async close(): Promise<void> {
    await Promise.all(this.#files.map((file) => file.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #file(name: string): SafetensorsFile {
    const file = this.#holder.get(name);
    if (file === undefined) throw missingTensor(name, this.folder, this.#holder.keys());
    return file;
  }
}

function badShard(path: string, reason: string): CheckpointError {
  return new CheckpointError(
    `The weight_map of ${path} names a shard that is refused: ${reason}. Shards lie beside their index.`,
  );
}

async function readWeightMap(path: string): Promise<[string, string][]> {
  let map: Record<string, Json> | undefined;
  try {
    map = (await readFields(path)).object("weight_map")?.values;
  } catch (cause) {
    throw new CheckpointError((cause as Error).message, { cause });
  }
  if (map === undefined)
    throw new CheckpointError(`${path} has no weight_map: expected tensor names with their shards.`);
  const pairs = Object.entries(map);
  if (pairs.length === 0) throw new CheckpointError(`The weight_map of ${path} is empty.`);
  for (const [name, shard] of pairs) {
    if (typeof shard !== "string")
      throw new CheckpointError(
        `The weight_map of ${path} gives ${describe(shard)} for ${describe(name)}: expected a file name.`,
      );
  }
  return pairs as [string, string][];
}

async function list(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (cause) {
    throw new CheckpointError(`The folder ${folder} cannot be read: ${(cause as Error).message}.`, { cause });
  }
}

function noWeights(folder: string, present: readonly string[]): CheckpointError {
  const pickled = present.find((name) => PICKLED.test(name) || name === "pytorch_model.bin.index.json");
  if (pickled !== undefined)
    return new CheckpointError(`${join(folder, pickled)} is not loaded: ${PICKLE_REASON}. ${convertPickle(pickled)}`);
  const found =
    present.length === 0
      ? "it is empty"
      : `it holds ${present.slice(0, 8).join(", ")}${present.length > 8 ? ", …" : ""}`;
  return new CheckpointError(`No weights in ${folder}: expected ${SINGLE} or ${INDEX}, ${found}.`);
}
