/** Element types; the codes are those of `DType` in native/tensor.h. */
export type DType = "float32" | "bfloat16" | "float16" | "int32" | "uint8";

/** Native code of each dtype. */
export const DTYPE_CODE: Readonly<Record<DType, number>> = { float32: 0, bfloat16: 1, float16: 2, int32: 3, uint8: 4 };

/** Bytes an element of each dtype takes. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = { float32: 4, bfloat16: 2, float16: 2, int32: 4, uint8: 1 };

/** Element types of weights. */
export type FloatDType = "float32" | "bfloat16" | "float16";

/**
 * What enters a matrix product: values as they are, or rounded to bfloat16 where the product is bound by arithmetic (its sums are float32 either
 * way). Native codes as `compute` of native/ops.def.
 */
export type Compute = "float32" | "bfloat16";
export const COMPUTE_CODE: Readonly<Record<Compute, number>> = { float32: 0, bfloat16: 1 };

/** Names that users may give a float dtype. */
export type DTypeName = FloatDType | "fp32" | "bf16" | "fp16";

const NAMES: Readonly<Record<DTypeName, FloatDType>> = {
  float32: "float32",
  fp32: "float32",
  bfloat16: "bfloat16",
  bf16: "bfloat16",
  float16: "float16",
  fp16: "float16",
};

/** The dtype that a name means, or `undefined`. */
export function floatDType(name: unknown): FloatDType | undefined {
  return typeof name === "string" && Object.hasOwn(NAMES, name) ? NAMES[name as DTypeName] : undefined;
}

/**
 * How products over weights of a dtype are computed. float16 values keep more digits than bfloat16 has, so they are multiplied in float32, which
 * loses nothing.
 */
export function computeOf(weights: DType): Compute {
  return weights === "bfloat16" ? "bfloat16" : "float32";
}
