/** Writes GGUF files for tests, damaged ones too. */

/** A metadata value with the number of its kind in the file. */
export type Pair = readonly [key: string, kind: number, value: unknown];

/** A tensor; sizes in the file's order, fastest first. */
export interface FileTensor {
  name: string;
  sizes: readonly (number | bigint)[];
  type: number;
  offset?: number | bigint;
  data?: Uint8Array;
}

const WIDTHS: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** Little-endian bytes of an unsigned number. */
export function uint(value: number | bigint, bytes: 1 | 2 | 4 | 8): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return out.subarray(0, bytes);
}

/** A string with its length. */
export function text(value: string): Buffer {
  return Buffer.concat([uint(Buffer.byteLength(value), 8), Buffer.from(value)]);
}

function scalar(kind: number, value: unknown): Buffer {
  if (kind === 8) return text(value as string);
  const out = Buffer.alloc(WIDTHS[kind]!);
  if (kind === 6) out.writeFloatLE(value as number);
  else if (kind === 12) out.writeDoubleLE(value as number);
  else uint(BigInt(value as number), 8).copy(out);
  return out;
}

/** One metadata pair; `kind` 9 takes `[inner kind, values]`. */
export function pair([key, kind, value]: Pair): Buffer {
  if (kind !== 9) return Buffer.concat([text(key), uint(kind, 4), scalar(kind, value)]);
  const [inner, values] = value as [number, unknown[]];
  const elements = values.map((v) => scalar(inner, v));
  return Buffer.concat([text(key), uint(9, 4), uint(inner, 4), uint(values.length, 8), ...elements]);
}

/** A whole file. Fields of `damage` replace what would be right. */
export function ggufFile(
  pairs: readonly Pair[],
  tensors: readonly FileTensor[],
  damage: { magic?: string; version?: number; tensorCount?: number | bigint; pairCount?: number | bigint } = {},
): Buffer {
  const head = [
    Buffer.from(damage.magic ?? "GGUF"),
    uint(damage.version ?? 3, 4),
    uint(damage.tensorCount ?? tensors.length, 8),
    uint(damage.pairCount ?? pairs.length, 8),
    ...pairs.map(pair),
  ];
  const data: Buffer[] = [];
  let at = 0;
  for (const { name, sizes, type, offset, data: bytes = new Uint8Array(0) } of tensors) {
    head.push(text(name), uint(sizes.length, 4), ...sizes.map((s) => uint(s, 8)), uint(type, 4), uint(offset ?? at, 8));
    const padded = Buffer.alloc(Math.ceil(bytes.length / 32) * 32);
    padded.set(bytes);
    data.push(padded);
    at += padded.length;
  }
  const header = Buffer.concat(head);
  return Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), ...data]);
}
