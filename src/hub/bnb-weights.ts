/** Checkpoints whose linear layers bitsandbytes has quantised to 4 bits, as transformers saves them: five to seven tensors a matrix. */
import { CheckpointError, ConfigError } from "../errors.js";
import type { ConfigFields } from "./config.js";
import { isObject, type Json, type JsonObject, own, parseStrict } from "./json.js";
import type { SafetensorsFolder } from "./safetensors-folder.js";
import type { FourBitParts, FourBitShape, FourBitSource, WeightEntry, WeightPlace } from "./weight-source.js";

const STATE = /^(.+)\.quant_state\.bitsandbytes__(nf4|fp4)$/;
const PARTS = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] as const;
const MAX_STATE_BYTES = 65_536;
const NESTED_BLOCK = 256;

/** The values of 4-bit codes, as float32 (QLoRA, and bitsandbytes' FP4). */
const CODES: Readonly<Record<FourBitParts["kind"], Float32Array>> = {
  nf4: Float32Array.of(
    ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
    ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
    ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
  ),
  fp4: Float32Array.of(
    ...[0, 0.0052083335, 0.6666667, 1, 0.33333334, 0.5, 0.16666667, 0.25],
    ...[0, -0.0052083335, -0.6666667, -1, -0.33333334, -0.5, -0.16666667, -0.25],
  ),
};

/** bitsandbytes' signed 8-bit map: the midpoints of 2^i equal parts of [0.1, 1], times 10^(i-6), both signs, with 0 and 1. */
function dynamicMap(): Float32Array {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const parts = 2 ** i;
    for (let j = 0; j < parts; j++) {
      const middle = (0.1 + (0.9 * (j + 0.5)) / parts) * 10 ** (i - 6);
      values.push(middle, -middle);
    }
  }
  return Float32Array.from(values.sort((a, b) => a - b));
}

interface State {
  readonly kind: "nf4" | "fp4";
  readonly key: string;
}

/** A folder of safetensors under the names of the matrices themselves. */
export class BnbWeights implements FourBitSource {
  readonly described = "config.json";
  readonly #folder: SafetensorsFolder;
  readonly #states = new Map<string, State>();
  readonly #names: ReadonlySet<string>;

  constructor(folder: SafetensorsFolder) {
    this.#folder = folder;
    const hidden = new Set<string>();
    for (const key of folder.names()) {
      const match = STATE.exec(key);
      if (match === null) continue;
      const [, name, kind] = match as unknown as [string, string, "nf4" | "fp4"];
      if (this.#states.has(name)) throw new CheckpointError(`${folder.where}: ${name} is quantised in two ways.`);
      this.#states.set(name, { kind, key });
      for (const part of PARTS) hidden.add(`${name}.${part}`);
      hidden.add(key);
    }
    this.#names = new Set(folder.names().filter((name) => !hidden.has(name)));
    const shapeless = [...this.#states.keys()].find((name) => !folder.has(name));
    if (shapeless !== undefined)
      throw new CheckpointError(`${folder.where}: ${shapeless} has a quant_state and no weight.`);
  }

  get where(): string {
    return this.#folder.where;
  }

  names(): string[] {
    return [...this.#names];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** A packed matrix has the shape of its codes here: `fourBit` says its own. */
  entry(name: string): WeightEntry {
    return this.#folder.entry(name);
  }

  fourBitNames(): string[] {
    return [...this.#states.keys()];
  }

  isFourBit(name: string): boolean {
    return this.#states.has(name);
  }

  locate(name: string): WeightPlace | undefined {
    return this.#states.has(name) ? undefined : this.#folder.locate(name);
  }

  async readFloat32(name: string): Promise<Float32Array> {
    if (this.#states.has(name))
      throw new CheckpointError(
        `${this.where}: ${name} is in 4 bits; its place in this model takes whole numbers only.`,
      );
    return this.#folder.readFloat32(name);
  }

  /** What quant_state says of a matrix: kind, shape and block, all checked against the sizes of its tensors. @throws CheckpointError */
  async fourBitShape(name: string): Promise<FourBitShape & { readonly offset: number }> {
    const { kind, key } = this.#states.get(name)!;
    const wrong = (what: string): CheckpointError =>
      new CheckpointError(
        `${this.where}: ${key}: ${what}. Fetch the checkpoint again, or quantise the original model.`,
      );
    if (this.#folder.entry(key).bytes > MAX_STATE_BYTES) throw wrong(`it has ${this.#folder.entry(key).bytes} bytes`);
    let state: Json;
    try {
      state = parseStrict(new TextDecoder("utf-8", { fatal: true }).decode(await this.#folder.read(key)));
    } catch (error) {
      throw wrong(`it is no JSON that can be used: ${(error as Error).message}`);
    }
    if (!isObject(state)) throw wrong("it is no object");
    const whole = (field: string): number => {
      const value = own(state as JsonObject, field);
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) throw wrong(`${field} is ${value}`);
      return value;
    };
    const block = whole("blocksize");
    if (block < 32 || block > 4096 || (block & (block - 1)) !== 0)
      throw wrong(`blocksize is ${block}, expected a power of two from 32 to 4096`);
    const shape = own(state, "shape");
    if (
      !Array.isArray(shape) ||
      shape.length !== 2 ||
      !shape.every((n) => Number.isSafeInteger(n) && (n as number) > 0)
    )
      throw wrong(`shape is ${JSON.stringify(shape)}, expected two numbers`);
    if (own(state, "quant_type") !== kind) throw wrong(`quant_type is ${own(state, "quant_type")}, expected ${kind}`);
    const [rows, columns] = shape as [number, number];
    const nested = Object.hasOwn(state, "nested_offset");
    const offset = nested ? own(state, "nested_offset") : 0;
    if (typeof offset !== "number" || !Number.isFinite(offset)) throw wrong(`nested_offset is ${offset}`);
    if (nested && whole("nested_blocksize") !== NESTED_BLOCK) throw wrong(`nested_blocksize is not ${NESTED_BLOCK}`);
    const blocks = Math.ceil((rows * columns) / block);
    const sized = (tensor: string, bytes: number): void => {
      if (!this.#folder.has(tensor)) throw wrong(`${tensor} is missing`);
      const found = this.#folder.entry(tensor).bytes;
      if (found !== bytes) throw wrong(`${tensor} has ${found} bytes, expected ${bytes} for [${rows}, ${columns}]`);
    };
    sized(name, Math.ceil((rows * columns) / 2));
    sized(`${name}.absmax`, nested ? blocks : 4 * blocks);
    sized(`${name}.quant_map`, 4 * 16);
    if (nested) {
      sized(`${name}.nested_absmax`, 4 * Math.ceil(blocks / NESTED_BLOCK));
      sized(`${name}.nested_quant_map`, 4 * 256);
    }
    return { kind, shape: [rows, columns], block, nested, offset };
  }

  async fourBit(name: string): Promise<FourBitParts> {
    const { kind, shape, block, nested, offset } = await this.fourBitShape(name);
    await this.#sameMap(`${name}.quant_map`, CODES[kind]);
    const codes = await this.#folder.read(name);
    const absmax = nested ? await this.#folder.read(`${name}.absmax`) : await this.#floats(`${name}.absmax`);
    if (!nested) return { kind, shape, block, codes, absmax, nested: undefined };
    await this.#sameMap(`${name}.nested_quant_map`, dynamicMap());
    return {
      kind,
      shape,
      block,
      codes,
      absmax,
      nested: { absmax: await this.#floats(`${name}.nested_absmax`), offset },
    };
  }

  async #floats(name: string): Promise<Float32Array> {
    const values = await this.#folder.readFloat32(name);
    if (values.some((v) => !Number.isFinite(v)))
      throw new CheckpointError(`${this.where}: ${name} holds NaN or infinity; it cannot be used.`);
    return values;
  }

  async #sameMap(name: string, wanted: Float32Array): Promise<void> {
    const found = await this.#floats(name);
    if (found.length !== wanted.length || found.some((v, i) => Math.abs(v - wanted[i]!) > 1e-6))
      throw new CheckpointError(
        `${this.where}: ${name} gives codes other numbers than bitsandbytes' own; it is not supported.`,
      );
  }

  async close(): Promise<void> {
    await this.#folder.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** What config.json says of a quantised checkpoint. */
export interface BnbConfig {
  readonly kind: "nf4" | "fp4";
  readonly nested: boolean;
  /** "float32" … in which products are computed. */
  readonly compute: string;
  /** Layers that were left alone, where the config names them. */
  readonly skip: readonly string[];
}

/**
 * Reads `quantization_config`; undefined for a checkpoint without.
 *
 * @throws ConfigError for one that is quantised in another way than bitsandbytes' 4 bits.
 */
export function bnbConfig(config: ConfigFields): BnbConfig | undefined {
  const fields = config.object("quantization_config");
  if (fields === undefined) return undefined;
  const method = fields.get("quant_method");
  const four = fields.get("load_in_4bit") === true;
  if ((method !== undefined && method !== "bitsandbytes") || !four) {
    const said = method === undefined || method === "bitsandbytes" ? "bitsandbytes in 8 bits" : JSON.stringify(method);
    throw new ConfigError(
      `${config.where}: the checkpoint is quantised by ${said}; of quantised checkpoints those of bitsandbytes in 4 bits are loaded. Load the original model, with .quantize({ type: "nf4" }) for 4 bits.`,
    );
  }
  const skip = fields.get("llm_int8_skip_modules");
  return {
    kind: fields.string("bnb_4bit_quant_type", { default: "fp4", oneOf: ["nf4", "fp4"] }) as "nf4" | "fp4",
    nested: fields.boolean("bnb_4bit_use_double_quant", { default: false }),
    compute: fields.string("bnb_4bit_compute_dtype", { default: "float32", oneOf: ["float32", "bfloat16", "float16"] }),
    skip: Array.isArray(skip) ? skip.filter((name): name is string => typeof name === "string") : [],
  };
}
