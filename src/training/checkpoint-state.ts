/** What a run remembers between two steps: plain numbers (state.json) and tensors (state.safetensors). */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RandomState } from "../data/random.js";
import type { SamplerState } from "../data/sampler.js";
import { toItsEnd } from "../display/host.js";
import { CheckpointError } from "../errors.js";
import { ConfigFields } from "../hub/config.js";
import { isObject, type Json, parseStrict } from "../hub/json.js";
import { SafetensorsFile } from "../hub/safetensors.js";
import { replaceFile, type TensorToWrite, writeSafetensors } from "../hub/safetensors-write.js";
import type { Parameter } from "../nn/module.js";
import type { DType } from "../tensor/dtype.js";
import { type Tensor, type TensorData, typedArray } from "../tensor/tensor.js";
import type { FileFacts } from "./checkpoint-files.js";
import type { Fingerprint } from "./fingerprint.js";
import type { Optimizer } from "./optimizer.js";
import type { TrainStep } from "./options.js";

/** The numbers of a run after a step. */
export interface RunState {
  step: number;
  /** Seconds that the steps took. */
  seconds: number;
  sampler: SamplerState;
  /** The counter that dropout and noise are drawn by. */
  random: { key: number; drawn: number };
  optimizerSteps: number;
  best: { step: number; validationLoss: number } | undefined;
  /** Measurements since the best one. */
  worse: number;
  processed: number;
  samples: number;
  history: readonly TrainStep[];
  fingerprint: Fingerprint;
  /** Instruction set (or GPU) and threads: with others, sums are rounded otherwise. */
  machine: string;
}

const NUMBERS = "state.json";
const TENSORS = "state.safetensors";
// A step of the history has about ten.
const MOST_VALUES = 100_000_000;

const STORED: Readonly<Partial<Record<DType, string>>> = {
  float32: "F32",
  bfloat16: "BF16",
  float16: "F16",
  int32: "I32",
  uint8: "U8",
};

/** Every tensor of a run's state by its name in the file: trained parameters, what the optimizer remembers of them, the best ones so far. */
export function stateTensors(
  parameters: ReadonlyMap<string, Parameter>,
  optimizer: Optimizer,
  best: readonly Tensor[],
): Map<string, Tensor> {
  const all = new Map<string, Tensor>();
  for (const [name, p] of parameters) {
    all.set(`parameter/${name}`, p);
    for (const [key, t] of Object.entries(optimizer.state(p)) as [string, Tensor][]) all.set(`${key}/${name}`, t);
  }
  [...parameters.keys()].forEach((name, i) => {
    if (best[i]) all.set(`best/${name}`, best[i]);
  });
  return all;
}

/** Bytes of a state's tensors. */
export function stateBytes(tensors: ReadonlyMap<string, Tensor>): number {
  return [...tensors.values()].reduce((n, t) => n + t.bytes, 0);
}

/** The tensors as they are to be written, each read from the device when its turn comes. */
export function readers(tensors: ReadonlyMap<string, Tensor>): TensorToWrite[] {
  return [...tensors].map(([name, t]) => ({
    name,
    dtype: STORED[t.dtype]!,
    shape: t.shape,
    data: async () => bytesOf(await t.raw()),
  }));
}

/** The tensors as they are now, in host memory: the run may go on while they are written. */
export async function snapshot(tensors: ReadonlyMap<string, Tensor>): Promise<TensorToWrite[]> {
  const parts = readers(tensors);
  // All are asked for before any has come.
  const data = await Promise.all([...tensors.values()].map((t) => t.raw()));
  return parts.map((part, i) => ({ ...part, data: bytesOf(data[i]!) }));
}

function bytesOf(data: TensorData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Writes both files of a state into a checkpoint's folder; returns what they should hold. */
export async function writeState(
  folder: string,
  tensors: readonly TensorToWrite[],
  state: RunState,
): Promise<Map<string, FileFacts>> {
  const text = toItsEnd(() => Buffer.from(`${JSON.stringify(state)}\n`));
  await replaceFile(join(folder, NUMBERS), async (file) => void (await file.writeFile(text)));
  const hash = createHash("sha256");
  let bytes = 0;
  await writeSafetensors(join(folder, TENSORS), tensors, {}, (part) => {
    hash.update(part);
    bytes += part.byteLength;
  });
  return new Map([
    [NUMBERS, { bytes: text.byteLength, sha256: createHash("sha256").update(text).digest("hex") }],
    [TENSORS, { bytes, sha256: hash.digest("hex") }],
  ]);
}

/** Reads the numbers of a checkpoint. @throws CheckpointError, ConfigError when it was written by a version that kept others. */
export async function readState(folder: string): Promise<RunState> {
  const path = join(folder, NUMBERS);
  const parsed = parseStrict(await readFile(path, "utf8"), { maxValues: MOST_VALUES });
  if (!isObject(parsed)) throw new CheckpointError(`${path} should hold a JSON object.`);
  const fields = new ConfigFields(parsed, path);
  const object = (name: string): ConfigFields => {
    const value = fields.object(name);
    if (value === undefined) throw new CheckpointError(`${fields.where} has no "${name}".`);
    return value;
  };
  const [sampler, random, best] = [object("sampler"), object("random"), fields.object("best")];
  const words = sampler.array("random", "integers", isNumber);
  const fingerprint: Fingerprint = {};
  for (const [name, value] of Object.entries(object("fingerprint").values)) {
    if (typeof value === "object") throw new CheckpointError(`${fields.where}: the fingerprint is not readable.`);
    fingerprint[name] = value;
  }
  return {
    step: fields.integer("step", { min: 0 }),
    seconds: fields.number("seconds", { min: 0 }),
    sampler: {
      epoch: sampler.integer("epoch", { min: 0 }),
      position: sampler.integer("position", { min: 0 }),
      random: words as RandomState,
      examples: sampler.integer("examples"),
      batch: sampler.integer("batch"),
    },
    random: { key: random.integer("key"), drawn: random.integer("drawn", { min: 0 }) },
    optimizerSteps: fields.integer("optimizerSteps", { min: 0 }),
    best: best && { step: best.integer("step"), validationLoss: best.number("validationLoss") },
    worse: fields.integer("worse", { min: 0 }),
    processed: fields.integer("processed", { min: 0 }),
    samples: fields.integer("samples", { min: 0 }),
    history: fields.array("history", "steps", isObject).map((step) => readStep(new ConfigFields(step, fields.where))),
    fingerprint,
    machine: fields.string("machine"),
  };
}

const isNumber = (value: Json): value is number => typeof value === "number";

function readStep(fields: ConfigFields): TrainStep {
  for (const name of ["step", "epoch", "loss", "lr", "gradNorm"]) fields.number(name);
  return { ...fields.values } as unknown as TrainStep;
}

/**
 * Sets tensors from a checkpoint; `best` are made by `makeBest`, called once when it has any.
 *
 * @throws CheckpointError when names, dtypes or shapes are others than those of the run.
 */
export async function restoreTensors(
  folder: string,
  parameters: ReadonlyMap<string, Parameter>,
  optimizer: Optimizer,
  makeBest: () => readonly Tensor[],
): Promise<void> {
  await using file = await SafetensorsFile.open(join(folder, TENSORS));
  const best = file.names().some((name) => name.startsWith("best/")) ? makeBest() : [];
  const wanted = stateTensors(parameters, optimizer, best);
  const strange = file.names().filter((name) => !wanted.has(name));
  const missing = [...wanted.keys()].filter((name) => !file.has(name));
  if (strange.length > 0 || missing.length > 0)
    throw new CheckpointError(
      `${file.path} does not fit this model: ${missing.length} tensors are missing (${missing[0] ?? "none"}), ${strange.length} have no place (${strange[0] ?? "none"}). Make the model and its adapter as they were.`,
    );
  for (const [name, target] of wanted) {
    const { dtype, shape } = file.entry(name);
    if (dtype !== STORED[target.dtype] || shape.join() !== target.shape.join())
      throw new CheckpointError(
        `${file.path}: ${name} is ${dtype} [${shape.join(", ")}], this run has ${STORED[target.dtype]} [${target.shape.join(", ")}].`,
      );
  }
  for (const [name, target] of wanted) {
    const data = typedArray(target.dtype, target.size);
    await file.readInto(name, bytesOf(data));
    target.set(data);
  }
}
