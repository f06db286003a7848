/** The kinds of values and tensors of a GGUF file, by the numbers that the format gives them (gguf.md and ggml.h of llama.cpp). */

/** Kinds of metadata values. */
export const VALUE = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

/** Fewest bytes of one value of each kind: a string at least has its length. */
export const VALUE_BYTES: ReadonlyMap<number, number> = new Map([
  [VALUE.uint8, 1],
  [VALUE.int8, 1],
  [VALUE.uint16, 2],
  [VALUE.int16, 2],
  [VALUE.uint32, 4],
  [VALUE.int32, 4],
  [VALUE.float32, 4],
  [VALUE.bool, 1],
  [VALUE.string, 8],
  [VALUE.array, 12],
  [VALUE.uint64, 8],
  [VALUE.int64, 8],
  [VALUE.float64, 8],
]);

/** How the elements of a tensor are stored: in blocks of so many elements and bytes along its rows. */
export interface GgufDtype {
  readonly name: string;
  readonly blockElements: number;
  readonly blockBytes: number;
}

const dtype = (name: string, blockElements: number, blockBytes: number): GgufDtype => ({
  name,
  blockElements,
  blockBytes,
});

/** Every tensor type in use, so that the place of each tensor in a file can be checked, whether its type is read or not. */
export const GGUF_DTYPES: ReadonlyMap<number, GgufDtype> = new Map([
  [0, dtype("F32", 1, 4)],
  [1, dtype("F16", 1, 2)],
  [2, dtype("Q4_0", 32, 18)],
  [3, dtype("Q4_1", 32, 20)],
  [6, dtype("Q5_0", 32, 22)],
  [7, dtype("Q5_1", 32, 24)],
  [8, dtype("Q8_0", 32, 34)],
  [9, dtype("Q8_1", 32, 40)],
  [10, dtype("Q2_K", 256, 84)],
  [11, dtype("Q3_K", 256, 110)],
  [12, dtype("Q4_K", 256, 144)],
  [13, dtype("Q5_K", 256, 176)],
  [14, dtype("Q6_K", 256, 210)],
  [15, dtype("Q8_K", 256, 292)],
  [16, dtype("IQ2_XXS", 256, 66)],
  [17, dtype("IQ2_XS", 256, 74)],
  [18, dtype("IQ3_XXS", 256, 98)],
  [19, dtype("IQ1_S", 256, 50)],
  [20, dtype("IQ4_NL", 32, 18)],
  [21, dtype("IQ3_S", 256, 110)],
  [22, dtype("IQ2_S", 256, 82)],
  [23, dtype("IQ4_XS", 256, 136)],
  [24, dtype("I8", 1, 1)],
  [25, dtype("I16", 1, 2)],
  [26, dtype("I32", 1, 4)],
  [27, dtype("I64", 1, 8)],
  [28, dtype("F64", 1, 8)],
  [29, dtype("IQ1_M", 256, 56)],
  [30, dtype("BF16", 1, 2)],
  [34, dtype("TQ1_0", 256, 54)],
  [35, dtype("TQ2_0", 256, 66)],
  [39, dtype("MXFP4", 32, 17)],
  [40, dtype("NVFP4", 64, 36)],
  [41, dtype("Q1_0", 128, 18)],
]);
