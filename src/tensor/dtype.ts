/** Element types; the codes are those of `DType` in native/tensor.h. */
export type DType = "float32" | "bfloat16" | "float16" | "int32" | "uint8";

/** Native code of each dtype. */
export const DTYPE_CODE: Readonly<Record<DType, number>> = { float32: 0, bfloat16: 1, float16: 2, int32: 3, uint8: 4 };

/** Bytes an element of each dtype takes. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = { float32: 4, bfloat16: 2, float16: 2, int32: 4, uint8: 1 };
