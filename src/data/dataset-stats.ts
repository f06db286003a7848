/** What {@link Dataset.stats} says of a column. */
export interface ColumnStats {
  column: string;
  type: string;
  nulls: number;
  /** Different values; null for lists and records. */
  distinct: number | null;
  min: number | null;
  mean: number | null;
  max: number | null;
  /** What min, mean and max are of: "value", "characters" or "items". */
  of: string | null;
  /** The most frequent value where values repeat, cut to 40 characters. */
  top: string | null;
}

/** Figures of one column's values. */
export function columnStats(column: string, type: string, values: readonly unknown[]): ColumnStats {
  const counts = new Map<unknown, number>();
  let nulls = 0;
  let countable = true;
  let of: string | null = null;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let sum = 0;
  let measured = 0;
  for (const value of values) {
    if (value === null || value === undefined) {
      nulls += 1;
      continue;
    }
    if (typeof value === "object" && !(value instanceof Date)) countable = false;
    else if (countable) {
      const key = value instanceof Date ? value.getTime() : value;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const [size, unit] = measure(value);
    if (size === undefined || Number.isNaN(size)) continue;
    of = unit;
    if (size < min) min = size;
    if (size > max) max = size;
    sum += size;
    measured += 1;
  }
  const known = measured > 0;
  return {
    column,
    type,
    nulls,
    distinct: countable ? counts.size : null,
    min: known ? min : null,
    mean: known ? sum / measured : null,
    max: known ? max : null,
    of,
    top: countable ? topValue(counts) : null,
  };
}

function measure(value: unknown): [size: number | undefined, unit: string] {
  if (typeof value === "number") return [value, "value"];
  if (typeof value === "bigint") return [Number(value), "value"];
  if (typeof value === "string") return [value.length, "characters"];
  if (Array.isArray(value)) return [value.length, "items"];
  return [undefined, ""];
}

function topValue(counts: ReadonlyMap<unknown, number>): string | null {
  let best: unknown;
  let most = 1;
  for (const [value, count] of counts) {
    if (count > most) {
      most = count;
      best = value;
    }
  }
  if (most === 1) return null;
  const text = String(best);
  return `${text.length > 40 ? `${text.slice(0, 39)}…` : text} (${most.toLocaleString("en-US")})`;
}
