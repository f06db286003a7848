/** Rotary positions of a GGUF file, in the words of config.json. */
import { ConfigError } from "../errors.js";
import type { ConfigFields } from "./config.js";
import type { GgufFile } from "./gguf.js";
import { describe, type JsonObject } from "./json.js";

const ROPE_FACTORS = "rope_freqs.weight";

/** How positions turn queries and keys: `rope_theta`, and `rope_scaling` if there is any. @param dim dimensions of a head that are turned */
export async function ggufRope(
  file: GgufFile,
  meta: ConfigFields,
  architecture: string,
  dim: number,
): Promise<JsonObject> {
  const theta = decimal(meta.number(`${architecture}.rope.freq_base`, { default: 10000 }));
  const scaling = await ropeScaling(file, meta, architecture, theta, dim);
  return scaling === undefined ? { rope_theta: theta } : { rope_theta: theta, rope_scaling: scaling };
}

async function ropeScaling(
  file: GgufFile,
  meta: ConfigFields,
  arch: string,
  theta: number,
  dim: number,
): Promise<JsonObject | undefined> {
  if (file.has(ROPE_FACTORS)) return llama3Scaling(file, await file.readFloat32(ROPE_FACTORS), theta, dim);
  const old = `${arch}.rope.scale_linear`;
  const linear = (key: string) => {
    const factor = decimal(meta.number(key));
    return factor === 1 || factor === 0 ? undefined : { rope_type: "linear", factor };
  };
  const type = meta.string(`${arch}.rope.scaling.type`, { default: meta.has(old) ? "old" : "none" });
  if (type === "none") return undefined;
  if (type === "old") return linear(old);
  if (type !== "linear") throw meta.wrong(`${arch}.rope.scaling.type`, '"none" or "linear"');
  return linear(`${arch}.rope.scaling.factor`);
}

/**
 * Llama 3.1's scaling: GGUF files hold what each frequency is divided by instead of the numbers it follows from. The largest divisor is
 * the factor; the other numbers are those that all published models have, and the divisors they give are compared.
 */
function llama3Scaling(file: GgufFile, divisors: Float32Array, theta: number, dim: number): JsonObject {
  const scaling = {
    rope_type: "llama3",
    factor: divisors.reduce((a, b) => Math.max(a, b), 1),
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const wrong = divisors.findIndex((divisor, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / dim);
    const smooth = (scaling.original_max_position_embeddings / wavelength - 1) / (scaling.high_freq_factor - 1);
    const expected = 1 / (Math.min(1, Math.max(0, smooth)) * (1 - 1 / scaling.factor) + 1 / scaling.factor);
    return !(Math.abs(divisor - expected) <= 1e-3 * expected);
  });
  if (wrong >= 0 || divisors.length !== dim / 2)
    throw new ConfigError(
      `${file.path}: the divisors of ${ROPE_FACTORS} (number ${wrong}: ${describe(divisors[wrong])}) are not those of Llama 3's rope scaling with factor ${scaling.factor}, which is the only such form that is known. Load the model from a folder with config.json and safetensors.`,
    );
  return scaling;
}

/** The shortest decimal that gives the same 32-bit float: 1e-5 for the 9.999999747378752e-6 that the file holds. */
export function decimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}
