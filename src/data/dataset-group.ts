import { DataError } from "../errors.js";
import type { AnyRow, Dataset } from "./dataset.js";

/** How the values of a group become one number. */
export type Aggregation = "count" | "sum" | "mean" | "min" | "max";

/** Rows grouped by the values of some columns, in order of first appearance. Made by `Dataset.groupBy`. */
export class Groups {
  readonly #names: readonly string[];
  readonly #groups = new Map<string, { key: AnyRow; rows: number[] }>();
  readonly #data: Dataset;
  readonly #make: (rows: AnyRow[]) => Dataset;

  /** Use `Dataset.groupBy`. */
  constructor(data: Dataset, names: readonly string[], make: (rows: AnyRow[]) => Dataset) {
    if (names.length === 0) throw new DataError("groupBy: name at least one column");
    this.#data = data;
    this.#names = names;
    this.#make = make;
    const columns = names.map((name) => data.column(name));
    for (let row = 0; row < data.length; row++) {
      const values = columns.map((column) => column[row]);
      const id = JSON.stringify(values, (_name, value) => (typeof value === "bigint" ? `${value}n` : value));
      const group = this.#groups.get(id);
      if (group) group.rows.push(row);
      else this.#groups.set(id, { key: Object.fromEntries(names.map((name, i) => [name, values[i]])), rows: [row] });
    }
  }

  /** Number of groups. */
  get length(): number {
    return this.#groups.size;
  }

  /** Rows of each group, most first, in a column `count`. */
  count(): Dataset {
    return this.aggregate({ count: "count" }).sort("count", { descending: true });
  }

  /** Sum of a column in each group, nulls left out. */
  sum(column: string): Dataset {
    return this.aggregate({ [`${column}_sum`]: [column, "sum"] });
  }

  /** Mean of a column in each group, nulls left out. */
  mean(column: string): Dataset {
    return this.aggregate({ [`${column}_mean`]: [column, "mean"] });
  }

  /** Smallest value of a column in each group. */
  min(column: string): Dataset {
    return this.aggregate({ [`${column}_min`]: [column, "min"] });
  }

  /** Largest value of a column in each group. */
  max(column: string): Dataset {
    return this.aggregate({ [`${column}_max`]: [column, "max"] });
  }

  /** Several figures at once: `aggregate({ n: "count", loss: ["loss", "mean"] })`. */
  aggregate(figures: Readonly<Record<string, "count" | readonly [column: string, how: Aggregation]>>): Dataset {
    const parts = Object.entries(figures).map(([name, figure]) => {
      if (this.#names.includes(name)) throw new DataError(`groupBy: ${name} is the name of a column grouped by`);
      if (figure === "count") return { name, values: undefined, how: "count" as const };
      const [column, how] = figure;
      return { name, values: this.#data.column(column), how };
    });
    const rows = [...this.#groups.values()].map((group) => {
      const row: AnyRow = { ...group.key };
      for (const { name, values, how } of parts) {
        row[name] = values ? reduce(values, group.rows, how, name) : group.rows.length;
      }
      return row;
    });
    return this.#make(rows);
  }
}

function reduce(values: readonly unknown[], rows: readonly number[], how: Aggregation, name: string): number | null {
  let count = 0;
  let sum = 0;
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (const row of rows) {
    const value = values[row];
    if (value === null || value === undefined) continue;
    count += 1;
    if (how === "count") continue;
    if (typeof value !== "number" && typeof value !== "boolean" && typeof value !== "bigint") {
      throw new DataError(`groupBy: ${name} needs a column of numbers, got a ${typeof value} in row ${row}`);
    }
    const number = Number(value);
    sum += number;
    if (number < min) min = number;
    if (number > max) max = number;
  }
  if (how === "count") return count;
  if (how === "sum") return sum;
  if (count === 0) return null;
  return how === "mean" ? sum / count : how === "min" ? min : max;
}
