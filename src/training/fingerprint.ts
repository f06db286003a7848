/** What a run must have in common with the one that it goes on from. */
import { createHash } from "node:crypto";
import type { Example } from "../data/mask.js";
import { ConfigError } from "../errors.js";
import type { Module } from "../nn/module.js";
import { QuantizedLinear } from "../quantization/nf4.js";
import { stats } from "../tensor/native.js";
import { outsideScope } from "../tensor/scope.js";
import { type Tensor, view } from "../tensor/tensor.js";
import type { TrainSettings } from "./options.js";

/** Named values; two runs may be joined when all are equal. */
export type Fingerprint = Record<string, string | number | boolean | null>;

/** Options that change nothing in what is learnt. */
const FREE: ReadonlySet<string> = new Set([
  "output",
  "resume",
  "saveEvery",
  "logEvery",
  "progress",
  "callbacks",
  "deterministic",
  "signal",
  "checkpointing", // the same gradients bit for bit
  "validation", // its rows are compared
  "format", // so are the training rows
  "textField",
]);

/** Every option by its name but those that change nothing. */
export function optionsFingerprint(settings: TrainSettings): Fingerprint {
  const out: Fingerprint = {};
  for (const [name, value] of Object.entries(settings)) {
    if (FREE.has(name) || value === undefined || typeof value === "function") continue;
    out[name] = typeof value === "object" ? JSON.stringify(value) : value;
  }
  // Paged states are the same states elsewhere.
  out.optimizer = settings.optimizer.replace("paged-", "");
  return out;
}

/** Examples as they are trained: their number, their tokens, and a hash of ids, labels and whatever else an example holds. */
export function dataFingerprint(name: string, examples: readonly Example[] | undefined): Fingerprint {
  if (!examples) return {};
  const hash = createHash("sha256");
  let tokens = 0;
  const add = (data: object): void => {
    for (const [key, value] of Object.entries(data)) {
      if (ArrayBuffer.isView(value)) {
        hash
          .update(`${key} ${value.byteLength / 4}\n`)
          .update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
        tokens += key === "ids" ? value.byteLength / 4 : 0;
      } else if (typeof value === "object" && value !== null) add(value);
      else hash.update(`${key} ${String(value)}\n`);
    }
  };
  for (const example of examples) add(example);
  return {
    [`rows of the ${name} data`]: examples.length,
    [`tokens of the ${name} data`]: tokens,
    [`content of the ${name} data`]: hash.digest("hex"),
  };
}

// So many elements of each frozen parameter are compared: another base model differs in the first ones already.
const SAMPLE = 256;

/** The model: its parameters' names and shapes, the first values of frozen ones, and how its adapter was made. */
export async function modelFingerprint(model: Module, adapter: object | undefined): Promise<Fingerprint> {
  const shapes = createHash("sha256");
  for (const [name, m] of model.namedModules()) {
    const form = m instanceof QuantizedLinear ? ` ${m.format}${m.options.roundInputs ? " of rounded inputs" : ""}` : "";
    shapes.update(`${name} ${m.constructor.name} ${m.ownElements()}${form}\n`);
  }
  const frozen: Tensor[] = [];
  for (const [name, p] of model.namedParameters()) {
    shapes.update(`${name} ${p.dtype} ${p.shape.join()} ${p.requiresGrad}\n`);
    if (!p.requiresGrad && p.materialized) frozen.push(p);
  }
  const values = createHash("sha256");
  const samples = frozen.map((p) => outsideScope(() => view(p, [Math.min(SAMPLE, p.size)], 0)));
  try {
    for (const data of await Promise.all(samples.map((s) => s.raw())))
      values.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  } finally {
    for (const s of samples) s.dispose();
  }
  const out: Fingerprint = {
    "layers and shapes of the model": shapes.digest("hex"),
    "frozen weights of the model": values.digest("hex"),
  };
  for (const [name, value] of Object.entries(adapter ?? {})) {
    // The seed tells how the adapter began, which its saved values replace.
    if (value === undefined || name === "seed" || typeof value === "function") continue;
    out[`adapter's ${name}`] = typeof value === "object" ? JSON.stringify(value) : value;
  }
  return out;
}

/** What the bits of a result depend on beside all that: device, instruction set, threads. */
export function machineFingerprint(device: "cpu" | "cuda"): string {
  const { isa, threads } = stats(device);
  return device === "cpu" ? `${isa}, ${threads} threads` : isa;
}

/**
 * Compares two runs.
 *
 * @param withData whether `now` says already which data there are.
 * @throws ConfigError that names each value that differs, what it was and what it is.
 */
export function requireEqual(folder: string, then: Fingerprint, now: Fingerprint, withData: boolean): void {
  const names = [...new Set([...Object.keys(now), ...Object.keys(then)])];
  const differing = names.filter((name) => then[name] !== now[name] && (withData || !name.endsWith(" data")));
  if (differing.length === 0) return;
  const lines = differing.map((name) => `\n- ${name}: ${shown(then[name])} in the checkpoint, ${shown(now[name])} now`);
  throw new ConfigError(
    `train: ${folder} was saved by a run that was set up differently, so resuming would not go on with it. ` +
      `Make these equal, or leave resume out to begin a new run:${lines.join("")}`,
  );
}

function shown(value: Fingerprint[string] | undefined): string {
  if (value === undefined) return "absent";
  // Of a hash, the beginning tells enough.
  if (typeof value === "string" && /^[0-9a-f]{64}$/.test(value)) return `${value.slice(0, 12)}…`;
  return String(value);
}
