/** Where a model's weights come from: a folder of safetensors or a GGUF file, under the checkpoint's names. */

/** One tensor as the source stores it. */
export interface WeightEntry {
  readonly shape: readonly number[];
  /** The source's name of its type: "BF16", "Q4_1" … */
  readonly dtype: string;
  /** Bytes in the source. */
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
  /** A tensor's own little-endian bytes, where the source keeps them plain. */
  read?(name: string): Promise<Uint8Array>;
  close(): Promise<void>;
}
