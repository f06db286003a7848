import type { MimeBundle } from "../channel.js";
import { tableBundle } from "./tables.js";

/** What is used of an Apache Arrow table; the notebook's own copy of the package may be of any version. */
interface ArrowTable {
  numRows: number;
  schema: { fields: { name: string; type: unknown }[] };
  getChildAt(index: number): { get(row: number): unknown } | null;
}

const MAX_ROWS = 30;
const MAX_COLUMNS = 20;

/** Is it a table (or a record batch) of apache-arrow's? Told by its shape: packages do not share classes. */
export function isArrowTable(value: unknown): value is ArrowTable {
  if (typeof value !== "object" || value === null) return false;
  const { numRows, schema, getChildAt } = value as Partial<ArrowTable>;
  return (
    typeof numRows === "number" &&
    Number.isSafeInteger(numRows) &&
    typeof getChildAt === "function" &&
    Array.isArray(schema?.fields)
  );
}

/** The first rows and columns of an Arrow table, each column with its type. */
export function arrowBundle(table: ArrowTable): MimeBundle {
  const { numRows, schema } = table;
  const fields = schema.fields.slice(0, MAX_COLUMNS);
  const columns = fields.map((_, i) => table.getChildAt(i));
  const rows = Array.from({ length: Math.min(numRows, MAX_ROWS) }, (_, row) =>
    columns.map((column) => plain(column?.get(row))),
  );
  const left: string[] = [];
  if (numRows > rows.length) left.push(`… ${(numRows - rows.length).toLocaleString("en-US")} more rows`);
  const hidden = schema.fields.length - fields.length;
  if (hidden > 0) left.push(`${hidden} more ${hidden === 1 ? "column" : "columns"}`);
  const names = fields.map(({ name, type }) => `${String(name)}: ${String(type)}`);
  return tableBundle(
    names,
    rows,
    left.join(", ") || `${numRows.toLocaleString("en-US")} ${numRows === 1 ? "row" : "rows"}`,
  );
}

/** Lists and records of Arrow's own as arrays and objects. */
function plain(value: unknown): unknown {
  if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array) return value;
  const { toJSON, toArray } = value as { toJSON?: unknown; toArray?: unknown };
  if (typeof toJSON === "function") return toJSON.call(value);
  if (typeof toArray === "function") return Array.from(toArray.call(value) as ArrayLike<unknown>);
  return value;
}
