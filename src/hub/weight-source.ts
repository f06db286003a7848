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
  /** A matrix in the blocks in which the source holds it; undefined where it holds it otherwise. */
  readBlocks?(name: string): Promise<PackedBlocks | undefined>;
  close(): Promise<void>;
}

/** A matrix in blocks of 32 elements along its rows, each part in a plane of its own: scale · code (+ minimum). */
export interface PackedBlocks {
  /** Signed bytes, or (with minima) two codes a byte: of byte i of a block's 16, element i in the low nibble and i + 16 in the high one. */
  readonly codes: Uint8Array;
  /** Bits of halves, one a block. */
  readonly scale: Uint16Array;
  readonly minimum: Uint16Array | undefined;
}
