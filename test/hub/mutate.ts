/** Damage to files that knows their structure: seeded, so that a finding comes again. */

/** A small generator of random numbers. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
  }

  /** A whole number below a limit. */
  below(limit: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const NUMBERS = [
  0,
  -1,
  1,
  2,
  3,
  0.5,
  7,
  31,
  33,
  255,
  256,
  65535,
  65536,
  2 ** 20,
  2 ** 24,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 40,
  2 ** 53 - 1,
];
const TEXTS = [
  "",
  "0",
  "../x",
  "/etc/passwd",
  "a\0b",
  "__proto__",
  "constructor",
  "F32",
  "BF16",
  "I8",
  "(a+)+$",
  ".*",
  "x".repeat(3000),
  "\ud800",
  "{{ 1 }}",
];

/** A value where something else is expected. */
function odd(random: Random): unknown {
  switch (random.below(8)) {
    case 0:
      return random.of([null, true, false]);
    case 1:
      return random.of(TEXTS);
    case 2:
      return [];
    case 3:
      return {};
    case 4:
      return Array.from({ length: random.below(5) }, () => random.of(NUMBERS));
    case 5:
      return [[[[{ a: [1] }]]]];
    default:
      return random.of(NUMBERS);
  }
}

type Holder = Record<string, unknown> | unknown[];

/** Every object and list of a value, itself included; of long lists some elements. */
function holders(value: unknown, random: Random, into: Holder[] = []): Holder[] {
  if (typeof value !== "object" || value === null) return into;
  into.push(value as Holder);
  const inner = Object.values(value);
  const some = inner.length > 40 ? Array.from({ length: 40 }, () => random.of(inner)) : inner;
  for (const each of some) holders(each, random, into);
  return into;
}

/** JSON with some places changed: values replaced, removed, doubled, moved. */
export function mutateJson(text: string, random: Random): string {
  const root: unknown = JSON.parse(text);
  for (let n = 1 + random.below(3); n > 0; n--) {
    const holder = random.of(holders(root, random));
    const keys = Object.keys(holder);
    const key = keys.length === 0 ? "0" : random.of(keys);
    const place = holder as Record<string, unknown>;
    switch (random.below(6)) {
      case 0:
        delete place[key];
        break;
      case 1:
        place[random.of(TEXTS)] = structuredClone(place[key]);
        break;
      case 2:
        if (keys.length > 1) place[key] = structuredClone(place[random.of(keys)]);
        break;
      case 3:
        if (typeof place[key] === "number") place[key] = (place[key] as number) + random.of([-1, 1, 8, 2 ** 31]);
        else place[key] = odd(random);
        break;
      default:
        place[key] = odd(random);
    }
  }
  const changed = JSON.stringify(root) ?? "";
  return random.below(10) === 0 ? mutateBytes(Buffer.from(changed), random).toString("latin1") : changed;
}

/** Bytes with some changed, among the first `upTo`: bits, integers of 4 and 8 bytes, pieces taken out or doubled, the end cut off. */
export function mutateBytes(bytes: Uint8Array, random: Random, upTo: number = bytes.length): Buffer {
  let out = Buffer.from(bytes);
  for (let n = 1 + random.below(4); n > 0 && out.length > 0; n--) {
    const at = random.below(Math.min(upTo, out.length));
    switch (random.below(8)) {
      case 0:
        out[at]! ^= 1 << random.below(8);
        break;
      case 1:
        out[at] = random.of([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
        break;
      case 2:
        if (at + 4 <= out.length)
          out.writeUInt32LE(random.of([0, 1, 2, 12, 2 ** 16, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]), at);
        break;
      case 3:
        if (at + 8 <= out.length)
          out.writeBigUInt64LE(
            random.of([0n, 1n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n]),
            at,
          );
        break;
      case 4: {
        const length = 1 + random.below(16);
        out = Buffer.concat([out.subarray(0, at), out.subarray(at + length)]);
        break;
      }
      case 5: {
        const length = 1 + random.below(16);
        out = Buffer.concat([out.subarray(0, at + length), out.subarray(at)]);
        break;
      }
      case 6: {
        const other = random.below(Math.min(upTo, out.length));
        const length = 1 + random.below(32);
        Buffer.from(out.subarray(other, other + length)).copy(out, at);
        break;
      }
      default:
        if (random.below(4) === 0) out = out.subarray(0, random.below(out.length + 1));
    }
  }
  return Buffer.from(out);
}

/** A safetensors file with its header's JSON changed and framed again, or with its bytes changed. */
export function mutateSafetensors(file: Uint8Array, random: Random): Buffer {
  const bytes = Buffer.from(file);
  const length = Number(bytes.readBigUInt64LE(0));
  if (random.below(3) === 0) return mutateBytes(bytes, random, random.below(5) === 0 ? bytes.length : 8 + length);
  const header = Buffer.from(mutateJson(bytes.toString("utf8", 8, 8 + length), random));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([size, header, bytes.subarray(8 + length)]);
}
