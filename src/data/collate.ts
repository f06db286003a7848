/** Examples of different lengths to one batch: end to end, or padded on either side and masked by length alone. */
import { ConfigError, DataError } from "../errors.js";
import { type Example, IGNORED } from "./mask.js";

/** How rows are brought to one length. */
export interface CollateOptions {
  /** The id that fills rows; which one makes no difference, as nothing looks at it. Default 0. */
  padId?: number;
  /** Where rows are filled, default "right"; "none": nothing is, the examples stand end to end in one row. */
  paddingSide?: "right" | "left" | "none";
  /** The length is rounded up to a multiple of this, default 1. */
  padToMultipleOf?: number;
}

/**
 * A batch of B rows of T positions, flat and row-major.
 *
 * `sequences` are runs of positions that attend to each other alone, each with positions from 0: with padding each row has one, its padding
 * left out; without padding there is one row, in which all stand.
 */
export interface Batch {
  /** (B*T) */
  inputIds: Int32Array;
  /** (B*T), already shifted: the id that should follow position t, or -100 where nothing is trained. */
  labels: Int32Array;
  /** (B*T), from 0 in each sequence; 0 in the padding. */
  positions: Int32Array;
  /** Where in the flat layout each sequence begins, and its length. */
  sequences: { begin: Int32Array; length: Int32Array };
  /** B */
  batch: number;
  /** T */
  length: number;
  /** Labels that are not -100. */
  tokens: number;
}

/**
 * Puts examples into a batch, in their order.
 *
 * @throws DataError for no examples, or an empty one. @throws ConfigError for options that cannot be.
 */
export function collate(examples: readonly Example[], options: CollateOptions = {}): Batch {
  const { padId = 0, paddingSide = "right", padToMultipleOf: multiple = 1 } = options;
  if (!Number.isSafeInteger(multiple) || multiple < 1)
    throw new ConfigError(`padToMultipleOf should be a whole number of at least 1, got ${multiple}.`);
  if (!["right", "left", "none"].includes(paddingSide))
    throw new ConfigError(`paddingSide should be "right", "left" or "none", got ${JSON.stringify(paddingSide)}.`);
  if (examples.length === 0) throw new DataError("A batch needs at least one example, got none.");
  const flat = paddingSide === "none";
  const needed = examples.reduce((n, { ids }) => (flat ? n + ids.length : Math.max(n, ids.length)), 0);
  const rows = flat ? 1 : examples.length;
  const length = Math.ceil(needed / multiple) * multiple;
  const batch: Batch = {
    inputIds: new Int32Array(rows * length).fill(padId),
    labels: new Int32Array(rows * length).fill(IGNORED),
    positions: new Int32Array(rows * length),
    sequences: { begin: new Int32Array(examples.length), length: new Int32Array(examples.length) },
    batch: rows,
    length,
    tokens: 0,
  };
  let end = 0;
  examples.forEach((example, row) => {
    if (example.ids.length === 0) throw new DataError(`Example ${row} of the batch has no tokens.`);
    const begin = flat ? end : row * length + (paddingSide === "left" ? length - example.ids.length : 0);
    end = begin + example.ids.length;
    batch.sequences.begin[row] = begin;
    batch.sequences.length[row] = example.ids.length;
    batch.tokens += fill(batch, example, begin);
  });
  return batch;
}

function fill(batch: Batch, { ids, labels }: Example, begin: number): number {
  batch.inputIds.set(ids, begin);
  batch.labels.set(labels.subarray(1), begin);
  let tokens = 0;
  for (let t = 0; t < ids.length; t++) batch.positions[begin + t] = t;
  for (let t = 1; t < labels.length; t++) if (labels[t] !== IGNORED) tokens++;
  return tokens;
}
