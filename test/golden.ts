import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** An array of a golden file. */
export interface GoldenArray {
  readonly dtype: "F32" | "I32" | "I64" | "U8";
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | BigInt64Array | Uint8Array;
}

const constructors = { F32: Float32Array, I32: Int32Array, I64: BigInt64Array, U8: Uint8Array } as const;

/** Path of a golden file or folder in the sources, e.g. `goldenPath("llama-gqa")`: compiled tests stand two folders deeper. */
export function goldenPath(name: string): string {
  return fileURLToPath(new URL(`../../test/fixtures/golden/${name}`, import.meta.url));
}

/** What `scripts/peers` noted beside a case's arrays: numbers, ids, options, and the versions that made them. */
// biome-ignore lint/suspicious/noExplicitAny: the content differs from case to case
export function goldenValues(name: string): any {
  return JSON.parse(readFileSync(goldenPath(`${name}.json`), "utf8"));
}

/**
 * The arrays of a golden case by name, e.g. `goldenArrays("llama-gqa/golden")`. Reads safetensors on its own, so that a
 * mistake in the library's reader cannot hide in its own tests.
 */
export function goldenArrays(name: string): Map<string, GoldenArray> {
  const file = readFileSync(goldenPath(`${name}.safetensors`));
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: GoldenArray["dtype"]; shape: number[]; data_offsets: [number, number] }
  >;
  const arrays = new Map<string, GoldenArray>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const [begin, end] = entry.data_offsets;
    // A copy of its own starts at offset 0, which every typed array can stand on.
    const bytes = Uint8Array.from(file.subarray(8 + length + begin, 8 + length + end));
    arrays.set(key, { dtype: entry.dtype, shape: entry.shape, data: new constructors[entry.dtype](bytes.buffer) });
  }
  return arrays;
}

/** One float array of a golden case; throws when it is absent. */
export function goldenFloats(arrays: Map<string, GoldenArray>, key: string): Float32Array {
  const found = arrays.get(key)?.data;
  if (found instanceof Float32Array) return found;
  throw new Error(`no float array "${key}"; there are ${[...arrays.keys()].join(", ")}`);
}

/** max|a - b| / max|b|, the measure of agreement used everywhere. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} numbers compared with ${b.length}`);
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < b.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (Number.isNaN(difference)) return Number.POSITIVE_INFINITY;
    worst = Math.max(worst, difference);
    scale = Math.max(scale, Math.abs(b[i]!));
  }
  return scale > 0 ? worst / scale : worst;
}
