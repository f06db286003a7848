/** Where a model's weights come from: a folder of safetensors or a GGUF file, under the checkpoint's names. */

/** One tensor as the source stores it. */
export interface WeightEntry {
  readonly shape: readonly number[];
  /** The source's name of its type: "BF16", "Q4_1" … */
  readonly dtype: string;
  /** Bytes in the source. */
  readonly bytes: number;
}

/** Where in an open file a tensor's plain little-endian elements stand, row-major. */
export interface WeightPlace {
  readonly fd: number;
  readonly path: string;
  readonly offset: number;
  readonly bytes: number;
}

/** Tensors by name, read one at a time. */
export interface WeightSource extends AsyncDisposable {
  /** The folder or file, for messages. */
  readonly where: string;
  /** What says which tensors there should be, for messages: "config.json" or "its metadata". */
  readonly described: string;
  names(): string[];
  has(name: string): boolean;
  /** @throws CheckpointError when there is none of that name. */
  entry(name: string): WeightEntry;
  /** A tensor as 32-bit numbers, row-major. @throws CheckpointError when its type cannot be restored. */
  readFloat32(name: string): Promise<Float32Array>;
  /** Where a tensor of F32, F16 or BF16 can be read as it is; undefined where it must be decoded. */
  locate?(name: string): WeightPlace | undefined;
  /** Where a matrix in blocks along its rows stands; undefined where it is held otherwise. */
  locateBlocks?(name: string): WeightBlocks | undefined;
  close(): Promise<void>;
}

/** A source some of whose matrices are in 4 bits as bitsandbytes has them. */
export interface FourBitSource extends WeightSource {
  /** The matrices in 4 bits. */
  fourBitNames(): string[];
  /** Whether a tensor is a matrix in 4 bits. */
  isFourBit(name: string): boolean;
  /** What is known of a matrix before it is read. @throws CheckpointError when its parts do not fit each other. */
  fourBitShape(name: string): Promise<FourBitShape>;
  /** Reads a matrix. @throws CheckpointError when its parts do not fit each other, or its codes mean other numbers than bitsandbytes'. */
  fourBit(name: string): Promise<FourBitParts>;
}

/** Whether matrices of a source may be in 4 bits. */
export function hasFourBits(source: WeightSource): source is FourBitSource {
  return "fourBit" in source;
}

/** The form of a 4-bit matrix. */
export interface FourBitShape {
  readonly kind: "nf4" | "fp4";
  /** (out, in). */
  readonly shape: readonly [number, number];
  /** Elements that share a scale. */
  readonly block: number;
  /** Whether the scales are quantised themselves. */
  readonly nested: boolean;
}

/** The parts of a 4-bit matrix, as the file has them. */
export interface FourBitParts extends Omit<FourBitShape, "nested"> {
  /** Two codes a byte, the even element in the high nibble. */
  readonly codes: Uint8Array;
  /** One a block: float32, or codes of the signed dynamic map where there is a `nested`. */
  readonly absmax: Float32Array | Uint8Array;
  readonly nested: { readonly absmax: Float32Array; readonly offset: number } | undefined;
}

/** A matrix of Q8_0, Q4_0, Q4_1 or a type that is restored while it is read (Q5_0, Q4_K, Q5_K, Q6_K) in an open file. */
export interface WeightBlocks extends WeightPlace {
  readonly format: string;
  /** Rows of a head, where the file holds them in llama.cpp's order (0, half, 1, half + 1, …); else 0. */
  readonly headRows: number;
}
