/** Orders and parts of data sets. */
import { DataError } from "../errors.js";

/** Shares of the rows (below 1) or numbers of rows (1 and more); what is left is for training. */
export interface SplitOptions {
  validation?: number;
  test?: number;
  /** Seed of the random draw. Default 0. */
  seed?: number;
  /** False keeps the order: the last rows become the test set. */
  shuffle?: boolean;
}

/** A row after some columns got new names. */
export type Renamed<Row, Names extends { readonly [Name in keyof Row]?: string }> = {
  [Name in keyof Row as Name extends keyof Names ? (Names[Name] extends string ? Names[Name] : Name) : Name]: Row[Name];
};

/** Rows of each part. A share above 0 gets at least one row; training must keep one. */
export function splitSizes(length: number, options: SplitOptions): { train: number; validation: number; test: number } {
  const validation = partSize(length, options.validation, "validation");
  const test = partSize(length, options.test, "test");
  const train = length - validation - test;
  if (train < 1) {
    throw new DataError(
      `split: ${length} rows less ${validation} for validation and ${test} for test leave none to train on; ask for less`,
    );
  }
  return { train, validation, test };
}

function partSize(length: number, part: number | undefined, name: string): number {
  if (part === undefined || part === 0) return 0;
  if (!(part > 0) || (part >= 1 && !Number.isInteger(part))) {
    throw new DataError(`split: ${name} must be a share below 1 or a number of rows, got ${part}`);
  }
  return part < 1 ? Math.max(1, Math.round(length * part)) : part;
}

type Key = string | number | bigint | boolean | Date | null | undefined;

/** Order of two sort keys; nulls (and NaN) come last whatever the direction. Strings go by code unit, alike everywhere. */
export function compare(a: unknown, b: unknown, sign: 1 | -1): number {
  const lastA = isLast(a);
  const lastB = isLast(b);
  if (lastA || lastB) return Number(lastA) - Number(lastB);
  const x = (a instanceof Date ? a.getTime() : a) as NonNullable<Key>;
  const y = (b instanceof Date ? b.getTime() : b) as NonNullable<Key>;
  return x < y ? -sign : x > y ? sign : 0;
}

const isLast = (key: unknown): boolean => key === null || key === undefined || Number.isNaN(key);
