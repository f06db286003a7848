// Short names for the tensors of an op's cases.
import type { TensorSpec } from "./case.js";

/** An activation: takes the dtype under test. */
export const act = (...shape: number[]): TensorSpec => ({ shape, act: true });
/** An activation of numbers above zero. */
export const positive = (...shape: number[]): TensorSpec => ({ shape, act: true, fill: "positive" });
/** An output in the dtype under test. */
export const out = (...shape: number[]): TensorSpec => ({ shape, act: true, output: true, fill: "zero" });
/** An output in the dtype under test that is read first. */
export const inOut = (...shape: number[]): TensorSpec => ({ shape, act: true, output: true, fill: "normal" });
/** float32 whatever the dtype under test. */
export const f32 = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32" });
export const f32Out = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32", output: true, fill: "zero" });
/** A float32 accumulator: read and written. */
export const f32InOut = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32", output: true, fill: "normal" });
/** int32 below `limit`. */
export const ids = (limit: number, ...shape: number[]): TensorSpec => ({ shape, dtype: "int32", fill: "ids", limit });
/** int32 with given values. */
export const ints = (...values: number[]): TensorSpec => ({ shape: [values.length], dtype: "int32", values });
export const idsOut = (...shape: number[]): TensorSpec => ({
  shape,
  dtype: "int32",
  output: true,
  fill: "zero",
  exact: true,
});
/** The same tensor, whose bytes must agree. */
export const exact = (t: TensorSpec): TensorSpec => ({ ...t, exact: true });
