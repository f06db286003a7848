/** Short examples into few long rows, so that every row of a batch brings about as many tokens. */
import { ConfigError, DataError } from "../errors.js";

/** Which examples stand together in a row, and how full the rows are. */
export interface Packing {
  /** Numbers of the examples of each row, longest first. */
  rows: Int32Array[];
  /** Tokens that a row may hold. */
  capacity: number;
  /** Tokens of all examples. */
  tokens: number;
  /** Share of the rows' room that is used, 0 … 1. */
  efficiency: number;
}

/**
 * Best fit, decreasing: the examples by falling length, each into the row with the least room that still takes it (at most 11/9 of the
 * fewest rows possible, Johnson 1973). No example is cut. The same lengths give the same rows.
 *
 * @param lengths Tokens of each example.
 * @throws DataError for an example that is longer than a row. @throws ConfigError for a capacity that cannot be.
 */
export function packRows(lengths: ArrayLike<number>, capacity: number): Packing {
  if (!Number.isSafeInteger(capacity) || capacity < 1)
    throw new ConfigError(`packing: a row should hold a whole number of at least 1 token, got ${capacity}.`);
  const order = Int32Array.from({ length: lengths.length }, (_, i) => i);
  // Of equal lengths the earlier example comes first.
  order.sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const rows: number[][] = [];
  const open = new OpenRows(capacity);
  let tokens = 0;
  for (const example of order) {
    const length = lengths[example]!;
    if (length > capacity)
      throw new DataError(
        `packing: example ${example} has ${length} tokens, a row holds ${capacity}. Raise maxLength.`,
      );
    const room = open.leastRoom(length);
    const row = room === undefined ? rows.push([]) - 1 : open.take(room);
    rows[row]!.push(example);
    open.put(row, (room ?? capacity) - length);
    tokens += length;
  }
  return {
    rows: rows.map((row) => Int32Array.from(row)),
    capacity,
    tokens,
    efficiency: rows.length === 0 ? 1 : tokens / (rows.length * capacity),
  };
}

// A model's own limit can be a hundred thousand tokens, of which one row would make a whole batch.
const PACKED_LENGTH = 1024;

/** Packs as a run does: rows of maxLength tokens, or else 1,024, or the longest example if that is longer; never more than the model's limit. */
export function packExamples(lengths: ArrayLike<number>, maxLength: number | undefined, limit: number): Packing {
  const longest = Array.from(lengths).reduce((a, b) => Math.max(a, b), 1);
  return packRows(lengths, Math.min(limit, maxLength ?? Math.max(PACKED_LENGTH, longest)));
}

/** Rows by the room they have left; a tree of flags over the rooms finds the least that suffices in log(capacity) steps. */
class OpenRows {
  readonly #rows: number[][];
  readonly #leaves: number;
  /** A binary tree in an array, its leaves from #leaves on: 1 where a row with such room exists. */
  readonly #any: Uint8Array;

  constructor(capacity: number) {
    this.#rows = Array.from({ length: capacity + 1 }, () => []);
    this.#leaves = 2 ** Math.ceil(Math.log2(capacity + 1));
    this.#any = new Uint8Array(2 * this.#leaves);
  }

  /** The least room, at least `length`, that some row has. */
  leastRoom(length: number): number | undefined {
    let node = this.#leaves + length;
    if (this.#any[node]) return length;
    // Up until a right neighbour has something, then down to its leftmost leaf.
    while (node > 1 && (node % 2 === 1 || !this.#any[node + 1])) node >>= 1;
    if (node <= 1) return undefined;
    for (node++; node < this.#leaves; ) node = this.#any[2 * node] ? 2 * node : 2 * node + 1;
    return node - this.#leaves;
  }

  /** Takes out the oldest row with exactly this room. */
  take(room: number): number {
    const rows = this.#rows[room]!;
    const row = rows.shift()!;
    if (rows.length === 0) this.#set(room, 0);
    return row;
  }

  put(row: number, room: number): void {
    this.#rows[room]!.push(row);
    this.#set(room, 1);
  }

  #set(room: number, value: 0 | 1): void {
    let node = this.#leaves + room;
    this.#any[node] = value;
    for (node >>= 1; node >= 1; node >>= 1) this.#any[node] = this.#any[2 * node]! | this.#any[2 * node + 1]!;
  }
}
