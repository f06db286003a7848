/**
 * The runs inside a Parquet page, walked without writing their values. The decoder writes as many values as a run says, wherever that
 * ends; beyond a bound the engine gives up the whole process, so a run that says too much must be found before.
 */
import type { PageHeader } from "hyparquet";

/** What a column's schema says of its pages. */
export interface PageKind {
  type: string;
  maxRepetition: number;
  maxDefinition: number;
}

/** Unpacks the bytes of a page. */
export type Unpack = (bytes: Uint8Array, length: number) => Uint8Array;

const bitsFor = (max: number): number => 32 - Math.clz32(max);

/** @throws Error when a page's runs hold more than its values, or its encoding is not read */
export function checkPage(header: PageHeader, packed: Uint8Array, kind: PageKind, unpack: Unpack): void {
  if (header.data_page_header) {
    const { num_values: count, encoding } = header.data_page_header;
    const reader = new Runs(unpack(packed, header.uncompressed_page_size));
    if (kind.maxRepetition > 0) reader.levels(bitsFor(kind.maxRepetition), count);
    if (kind.maxDefinition > 0) reader.levels(bitsFor(kind.maxDefinition), count);
    reader.values(encoding, kind.type, count, false);
  } else if (header.data_page_header_v2) {
    const page = header.data_page_header_v2;
    const { num_values: count, repetition_levels_byte_length: first, definition_levels_byte_length: second } = page;
    if (kind.maxRepetition > 0) new Runs(packed.subarray(0, first)).runs(bitsFor(kind.maxRepetition), count);
    if (kind.maxDefinition > 0)
      new Runs(packed.subarray(first, first + second)).runs(bitsFor(kind.maxDefinition), count);
    const body = packed.subarray(first + second);
    const whole = page.is_compressed === false ? body : unpack(body, header.uncompressed_page_size - first - second);
    new Runs(whole).values(page.encoding, kind.type, count - page.num_nulls, true);
  }
}

class Runs {
  #at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new Error("a page that is cut short");
    return byte;
  }

  #varint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#byte();
      value += (byte & 127) * 2 ** shift;
      if (byte < 128 && value < 2 ** 31) return value;
      if (shift >= 28) throw new Error("a length beyond 2^31 in a page");
    }
  }

  /** Runs with their length in bytes before them. */
  levels(width: number, count: number, open = false): void {
    const length = this.#byte() + this.#byte() * 2 ** 8 + this.#byte() * 2 ** 16 + this.#byte() * 2 ** 24;
    const begin = this.#at;
    if (length > this.#bytes.length - begin) throw new Error("levels that go on after their page");
    this.runs(width, count, open);
    this.#at = begin + length;
  }

  /**
   * Runs of one value, and packed groups of eight, until there are `count`.
   *
   * @param open Fewer may stand there: nulls have a level, but no value.
   */
  runs(width: number, count: number, open = false): void {
    for (let seen = 0; seen < count; ) {
      if (open && this.#at >= this.#bytes.length) return;
      const header = this.#varint();
      const packed = (header & 1) === 1;
      const values = packed ? (header >>> 1) * 8 : header >>> 1;
      // The last group may be filled up.
      if (values > count - seen + (packed ? 7 : 0))
        throw new Error(`a run of ${values} values where ${count - seen} are left`);
      this.#at += packed ? (header >>> 1) * width : (width + 7) >> 3;
      // Some writers leave out the padding of the last group.
      if (this.#at > this.#bytes.length && !(packed && (open || seen + values >= count)))
        throw new Error("a run that goes on after its page");
      seen += values;
    }
  }

  values(encoding: string, type: string, count: number, second: boolean): void {
    if (count === 0) return;
    if (encoding === "DELTA_BYTE_ARRAY")
      throw new Error(
        "its texts are encoded as DELTA_BYTE_ARRAY, which is not read; write it anew, as pyarrow does by default",
      );
    if (encoding === "DELTA_BINARY_PACKED" || encoding === "DELTA_LENGTH_BYTE_ARRAY") {
      this.#delta();
      return;
    }
    const dictionary = encoding === "PLAIN_DICTIONARY" || encoding === "RLE_DICTIONARY";
    if (type === "BOOLEAN" && (encoding === "RLE" || (dictionary && !second))) {
      this.levels(1, count, true);
      return;
    }
    if (!dictionary && encoding !== "RLE") return;
    const width = this.#byte();
    if (width > 32) throw new Error(`indices of ${width} bits`);
    if (width > 0 || second) this.runs(width, count, true);
  }

  // The decoder takes these two numbers as they are, and goes backwards where one is negative.
  #delta(): void {
    const block = this.#varint();
    const parts = this.#varint();
    if (!(block >= 8 && block <= 2 ** 20 && parts >= 1 && parts <= 2 ** 12 && block % parts === 0))
      throw new Error(`blocks of ${block} values in ${parts} parts`);
  }
}
