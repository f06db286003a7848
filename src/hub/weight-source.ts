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

/** A matrix of Q8_0, Q4_0, Q4_1 or a type that is restored while it is read (Q5_0, Q4_K, Q5_K, Q6_K) in an open file. */
export interface WeightBlocks extends WeightPlace {
  readonly format: string;
  /** Rows of a head, where the file holds them in llama.cpp's order (0, half, 1, half + 1, …); else 0. */
  readonly headRows: number;
}
