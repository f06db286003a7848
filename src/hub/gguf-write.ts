/** Writing GGUF (version 3, little-endian), tensor by tensor, so that a file appears whole under its name or not at all. */
import { CheckpointError } from "../errors.js";
import { GGUF_DTYPES, VALUE } from "./gguf-types.js";
import { describe } from "./json.js";
import { replaceFile, writeAll } from "./safetensors-write.js";

const ALIGNMENT = 32;

/** A metadata value with its kind in the file. */
export type GgufField =
  | { readonly kind: "uint32" | "int32" | "float32"; readonly value: number }
  | { readonly kind: "bool"; readonly value: boolean }
  | { readonly kind: "string"; readonly value: string }
  | { readonly kind: "strings"; readonly value: readonly string[] }
  | { readonly kind: "int32s" | "float32s"; readonly value: readonly number[] };

/** A tensor to be written; `data` is called when its turn comes, so that no two need be in memory at once. */
export interface GgufTensor {
  readonly name: string;
  /** "F32", "F16", "Q8_0" … */
  readonly dtype: string;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
  readonly data: () => Promise<Uint8Array>;
}

/**
 * Writes a file to a temporary name in the same folder, flushes it and renames it.
 *
 * @throws CheckpointError when a tensor does not fit its shape, or the disk fails: what stood under `path` before is then unchanged.
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufField>,
  tensors: readonly GgufTensor[],
): Promise<void> {
  const sizes = tensors.map((tensor) => bytesOf(tensor));
  await replaceFile(path, async (file) => {
    const header = headerOf(metadata, tensors, sizes);
    await writeAll(file, padded(header));
    for (const [i, tensor] of tensors.entries()) {
      const bytes = await tensor.data();
      if (bytes.byteLength !== sizes[i])
        throw new CheckpointError(
          `Tensor ${describe(tensor.name)} for ${path}: ${tensor.dtype} [${tensor.shape.join(", ")}] is ${sizes[i]} bytes, got ${bytes.byteLength}.`,
        );
      await writeAll(file, padded(bytes));
    }
  });
}

function typeOf(name: string): { id: number; blockElements: number; blockBytes: number } {
  for (const [id, type] of GGUF_DTYPES) if (type.name === name) return { id, ...type };
  throw new CheckpointError(`GGUF has no type ${describe(name)}.`);
}

function bytesOf({ name, dtype, shape }: GgufTensor): number {
  const { blockElements, blockBytes } = typeOf(dtype);
  const row = shape.at(-1) ?? 1;
  if (row % blockElements !== 0)
    throw new CheckpointError(
      `Tensor ${describe(name)} cannot be written as ${dtype}: its rows of ${row} are no whole blocks of ${blockElements}.`,
    );
  return (shape.reduce((n, size) => n * size, 1) / blockElements) * blockBytes;
}

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength % ALIGNMENT === 0) return bytes;
  const whole = new Uint8Array(aligned(bytes.byteLength));
  whole.set(bytes);
  return whole;
}

function headerOf(
  metadata: ReadonlyMap<string, GgufField>,
  tensors: readonly GgufTensor[],
  sizes: readonly number[],
): Uint8Array {
  const out: Uint8Array[] = [Buffer.from("GGUF"), uint32(3), uint64(tensors.length), uint64(metadata.size)];
  for (const [key, field] of metadata) out.push(text(key), Buffer.concat(fieldBytes(field))); // vocabularies have too many parts for arguments
  let at = 0;
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    out.push(text(name), uint32(shape.length), ...shape.toReversed().map(uint64), uint32(typeOf(dtype).id), uint64(at));
    at += aligned(sizes[i]!);
  }
  return Buffer.concat(out);
}

function fieldBytes(field: GgufField): Uint8Array[] {
  const array = (kind: number, bytes: Uint8Array[]) => [
    uint32(VALUE.array),
    uint32(kind),
    uint64((field.value as readonly unknown[]).length),
    ...bytes,
  ];
  switch (field.kind) {
    case "uint32":
      return [uint32(VALUE.uint32), uint32(field.value)];
    case "int32":
      return [uint32(VALUE.int32), raw(Int32Array.of(field.value))];
    case "float32":
      return [uint32(VALUE.float32), raw(Float32Array.of(field.value))];
    case "bool":
      return [uint32(VALUE.bool), Uint8Array.of(field.value ? 1 : 0)];
    case "string":
      return [uint32(VALUE.string), text(field.value)];
    case "strings":
      return array(VALUE.string, field.value.map(text));
    case "int32s":
      return array(VALUE.int32, [raw(Int32Array.from(field.value))]);
    case "float32s":
      return array(VALUE.float32, [raw(Float32Array.from(field.value))]);
  }
}

// Every platform that Node runs on keeps numbers little-endian.
const raw = (array: Int32Array | Float32Array | Uint32Array): Uint8Array => new Uint8Array(array.buffer);
const uint32 = (value: number): Uint8Array => raw(Uint32Array.of(value));

function uint64(value: number): Uint8Array {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function text(value: string): Uint8Array {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint64(bytes.length), bytes]);
}
