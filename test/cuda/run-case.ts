// Runs one case on the CPU and, twice, on the GPU: the largest error of its outputs, and whether both GPU runs gave the same bytes.

import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../../src/hub/float16.js";
import * as calls from "../../src/tensor/calls.js";
import type { Device } from "../../src/tensor/device.js";
import type { DType } from "../../src/tensor/dtype.js";
import { recover, state } from "../../src/tensor/native.js";
import { empty, type Tensor, type TensorData, typedArray } from "../../src/tensor/tensor.js";
import type { CaseDType, CaseValues, OpCase, TensorSpec } from "./case.js";

/** Default bound of an output's relative error. */
export const TOLERANCE: Readonly<Record<CaseDType, number>> = { float32: 1e-5, bfloat16: 1e-2, float16: 2e-3 };

export interface CaseResult {
  /** Largest relative error of an output against the CPU. */
  error: number;
  /** The output that has it: its place among all tensors. */
  worst: number;
  /** The same of the GPU, and of the CPU, against float64, where a case has a reference. */
  reference?: { gpu: number; cpu: number };
  /** The output whose bytes differ in two runs, or that had to be equal and is not. */
  unequal?: { output: number; what: "two runs" | "CPU and GPU" };
}

const LARGEST = 2 ** 25;

/** Numbers of a case, the same in every run (mulberry32 over the case's name). */
function generator(text: string): () => number {
  let a = 2166136261;
  for (const c of text) a = Math.imul(a ^ c.codePointAt(0)!, 16777619);
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function values(spec: TensorSpec, random: () => number): Float64Array {
  const size = spec.shape.reduce((a, b) => a * b, 1);
  if (size > LARGEST) throw new Error(`a tensor of ${size} elements is too large for a case: at most ${LARGEST}`);
  if (spec.values) {
    if (spec.values.length !== size)
      throw new Error(`a tensor of ${size} elements is given ${spec.values.length} values`);
    return Float64Array.from(spec.values);
  }
  const whole = spec.dtype === "int32" || spec.dtype === "uint8";
  const { limit = spec.dtype === "uint8" ? 256 : 2 ** 20 } = spec;
  const fill = spec.fill ?? (spec.output ? "mark" : whole ? "ids" : "normal");
  const make: Record<typeof fill, () => number> = {
    mark: () => (spec.dtype === "int32" ? 0x7fffffff : spec.dtype === "uint8" ? 0xab : Number.NaN),
    zero: () => 0,
    ids: () => Math.floor(random() * limit),
    uniform: random,
    e4m3: () => Math.floor(random() * 127) + (random() < 0.5 ? 0 : 128),
    positive: () => 0.1 + 2 * random(),
    normal: () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  };
  return Float64Array.from({ length: size }, make[fill]);
}

/** Values as they stand in memory. */
function packed(data: Float64Array, dtype: DType): TensorData {
  if (dtype === "bfloat16") return float32ToBfloat16(Float32Array.from(data));
  if (dtype === "float16") return float32ToFloat16(Float32Array.from(data));
  const out = typedArray(dtype, data.length);
  out.set(data);
  return out;
}

function unpacked(data: TensorData, dtype: DType): Float64Array {
  if (dtype === "bfloat16") return Float64Array.from(bfloat16ToFloat32(data as Uint16Array));
  if (dtype === "float16") return Float64Array.from(float16ToFloat32(data as Uint16Array));
  return Float64Array.from(data);
}

/** |a-b|₂/|b|₂; elements that are NaN in both do not count, in one alone give infinity. */
export function relativeError(a: Float64Array, b: Float64Array): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    if (Object.is(x, y) || x === y || (Number.isNaN(x) && Number.isNaN(y))) {
      if (Number.isFinite(y)) size += y * y;
      continue;
    }
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Number.POSITIVE_INFINITY;
    difference += (x - y) ** 2;
    size += y * y;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / (size === 0 ? 1 : size));
}

const table = calls as unknown as Readonly<Record<string, (...args: (number | readonly number[])[]) => void>>;
interface Slot {
  spec: TensorSpec;
  /** Its place in the call; tensors of a list share it. */
  place: number;
  data: Float64Array;
}

function slotsOf(c: OpCase, dtype: CaseDType): Slot[] {
  const random = generator(c.name);
  const slots: Slot[] = [];
  c.tensors.forEach((entry, place) => {
    for (const spec of entry === null ? [] : Array.isArray(entry) ? entry : [entry]) {
      // Both backends get what the dtype under test can hold.
      const kept: DType = spec.act ? dtype : (spec.dtype ?? "float32");
      slots.push({ spec, place, data: unpacked(packed(values(spec, random), kept), kept) });
    }
  });
  return slots;
}

async function run(c: OpCase, slots: readonly Slot[], device: Device, dtype: CaseDType): Promise<TensorData[]> {
  const typeOf = (s: Slot): DType => (s.spec.act ? dtype : (s.spec.dtype ?? "float32"));
  const tensors = slots.map((s) => empty(s.spec.shape, typeOf(s), device).set(packed(s.data, typeOf(s))));
  const handle = (place: number): number | number[] => {
    const here = slots.flatMap((s, i) => (s.place === place ? [(tensors[i] as Tensor).handle] : []));
    return Array.isArray(c.tensors[place]) ? here : (here[0] ?? 0);
  };
  try {
    const call = table[c.op];
    if (call === undefined) throw new Error(`${c.name}: there is no op ${c.op}`);
    call(...c.tensors.map((_, place) => handle(place)), ...c.ints, ...c.floats);
    return await Promise.all(tensors.map((t) => t.raw()));
  } finally {
    if (state(device) !== "running") recover(device);
    for (const t of tensors) t.dispose();
  }
}

const sameBytes = (a: TensorData, b: TensorData): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

/** What float16 cannot hold is infinite in it. */
const overflowing = (v: number): number => (Math.abs(v) >= 65520 ? v * Number.POSITIVE_INFINITY : v);

/** Runs a case in a dtype. */
export async function runCase(c: OpCase, dtype: CaseDType): Promise<CaseResult> {
  const slots = slotsOf(c, dtype);
  const cpu = await run(c, slots, "cpu", "float32");
  const gpu = await run(c, slots, "cuda", dtype);
  const again = await run(c, slots, "cuda", dtype);
  const result: CaseResult = { error: 0, worst: -1 };
  const onGpu = slots.map((s, i) => unpacked(gpu[i]!, s.spec.act ? dtype : (s.spec.dtype ?? "float32")));
  const onCpu = slots.map((s, i) => {
    const data = unpacked(cpu[i]!, s.spec.act ? "float32" : (s.spec.dtype ?? "float32"));
    return s.spec.act && dtype === "float16" ? data.map(overflowing) : data;
  });
  const outputs = slots.flatMap((s, i) => (s.spec.output ? [i] : []));
  for (const i of outputs) {
    if (slots[i]!.spec.skip) continue;
    if (!sameBytes(gpu[i]!, again[i]!)) result.unequal ??= { output: i, what: "two runs" };
    if (slots[i]!.spec.exact && relativeError(onGpu[i]!, onCpu[i]!) !== 0)
      result.unequal ??= { output: i, what: "CPU and GPU" };
    const error = relativeError(onGpu[i]!, onCpu[i]!);
    if (error > result.error || result.worst < 0) Object.assign(result, { error, worst: i });
  }
  if (c.reference && (dtype === "float32" || process.env.TUNEBOOK_REFERENCE === "all")) {
    const given: CaseValues[] = c.tensors.map((entry, place) => {
      const here = slots.filter((s) => s.place === place).map((s) => s.data);
      return entry === null ? null : Array.isArray(entry) ? here : here[0]!;
    });
    const expected = c.reference(given);
    const largest = (got: Float64Array[]): number =>
      outputs.reduce((most, i, k) => Math.max(most, expected[k] ? relativeError(got[i]!, expected[k]) : 0), 0);
    result.reference = { gpu: largest(onGpu), cpu: largest(onCpu) };
  }
  return result;
}
