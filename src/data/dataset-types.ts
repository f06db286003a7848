/** The Arrow type of a column, found from its values. */
import {
  Binary,
  Bool,
  DataType,
  Field,
  Float64,
  Int32,
  Int64,
  List,
  Null,
  Struct,
  TimestampMillisecond,
  Utf8,
} from "apache-arrow";
import { DataError } from "../errors.js";

/** Values nested deeper than this are refused. */
const maxDepth = 32;
/** Records with more keys than this are refused. */
const maxFields = 10_000;

/** Says where a row came from: `"rows.jsonl, line 12"`. */
export type Where = (row: number) => string;

/** What is known of a column so far; `kind` is "null" until a value was seen. */
interface Shape {
  kind: "null" | "boolean" | "integer" | "bigint" | "number" | "string" | "date" | "bytes" | "list" | "record";
  /** Row that set the kind. */
  row: number;
  item?: Shape;
  fields?: Map<string, Shape>;
}

const newShape = (): Shape => ({ kind: "null", row: -1 });
const maxInt32 = 2147483647;

/** Collects the shapes of records, row by row, and gives their Arrow fields. */
export class TypeFinder {
  readonly #fields = new Map<string, Shape>();
  readonly #where: Where;

  constructor(where: Where) {
    this.#where = where;
  }

  /** @throws DataError for what is no record, a value of no known type, or one that does not fit the rows before. */
  add(record: unknown, row: number): void {
    if (!isRecord(record)) {
      throw new DataError(`${this.#where(row)}: expected a record such as {"text": "…"}, got ${describe(record)}`);
    }
    this.#addRecord(this.#fields, record, row, "", 0);
  }

  fields(): Field[] {
    return [...this.#fields].map(([name, shape]) => new Field(name, arrowType(shape), true));
  }

  #addRecord(fields: Map<string, Shape>, record: Record<string, unknown>, row: number, path: string, depth: number) {
    for (const key of Object.keys(record)) {
      let shape = fields.get(key);
      if (!shape) {
        if (key === "__proto__") throw new DataError(`${this.#where(row)}: the key "__proto__" is refused`);
        if (fields.size >= maxFields) throw new DataError(`${this.#where(row)}: more than ${maxFields} different keys`);
        shape = newShape();
        fields.set(key, shape);
      }
      this.#addValue(shape, record[key], row, path === "" ? key : `${path}.${key}`, depth);
    }
  }

  #addValue(shape: Shape, value: unknown, row: number, path: string, depth: number): void {
    if (value === null || value === undefined) return;
    if (depth > maxDepth) {
      throw new DataError(`${this.#where(row)}: ${path.slice(0, 60)}… is nested deeper than ${maxDepth} levels`);
    }
    const kind = kindOf(value);
    if (kind === undefined) {
      throw new DataError(`${this.#where(row)}, column ${path}: expected data, got ${describe(value)}`);
    }
    if (shape.kind === "null") {
      shape.kind = kind;
      shape.row = row;
    } else if (shape.kind !== kind) {
      this.#widen(shape, kind, value, row, path);
    }
    if (kind === "list") {
      shape.item ??= newShape();
      for (const item of value as ArrayLike<unknown> & Iterable<unknown>) {
        this.#addValue(shape.item, item, row, `${path}[]`, depth + 1);
      }
    } else if (kind === "record") {
      shape.fields ??= new Map();
      this.#addRecord(shape.fields, value as Record<string, unknown>, row, path, depth + 1);
    }
  }

  #widen(shape: Shape, kind: Shape["kind"], value: unknown, row: number, path: string): void {
    const pair = new Set([shape.kind, kind]);
    if (pair.has("integer") && pair.has("number")) shape.kind = "number";
    else if (pair.has("integer") && pair.has("bigint")) shape.kind = "bigint";
    else {
      throw new DataError(
        `${this.#where(row)}, column ${path}: expected ${names[shape.kind]} as in ${this.#where(shape.row)}, got ${describe(value)}; ` +
          "give every row of a column the same type",
      );
    }
  }
}

const names: Record<Shape["kind"], string> = {
  null: "null",
  boolean: "true or false",
  integer: "a whole number",
  bigint: "a whole number",
  number: "a number",
  string: "a string",
  date: "a date",
  bytes: "bytes",
  list: "a list",
  record: "a record",
};

/** Whether a value is a plain record of data. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return false;
  return (
    !ArrayBuffer.isView(value) && !(value instanceof Date) && !(value instanceof Map) && !(value instanceof Promise)
  );
}

function kindOf(value: unknown): Shape["kind"] | undefined {
  switch (typeof value) {
    case "string":
      return "string";
    case "boolean":
      return "boolean";
    case "bigint":
      return "bigint";
    case "number":
      // -0 has no whole-number form.
      return Number.isInteger(value) && Math.abs(value) <= maxInt32 && !Object.is(value, -0) ? "integer" : "number";
    case "object":
      if (Array.isArray(value)) return "list";
      if (value instanceof Uint8Array) return "bytes";
      if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return "list";
      if (value instanceof Date) return "date";
      return isRecord(value) ? "record" : undefined;
    default:
      return undefined;
  }
}

/** A short account of a value for messages. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string")
    return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean")
    return `${typeof value} ${value}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object")
    return value.constructor?.name === "Object" ? "a record" : `a ${value.constructor?.name}`;
  return typeof value === "undefined" ? "undefined" : `a ${typeof value}`;
}

function arrowType(shape: Shape): DataType {
  switch (shape.kind) {
    case "null":
      return new Null();
    case "boolean":
      return new Bool();
    case "integer":
      return new Int32();
    case "bigint":
      return new Int64();
    case "number":
      return new Float64();
    case "string":
      return new Utf8();
    case "date":
      return new TimestampMillisecond();
    case "bytes":
      return new Binary();
    case "list":
      return new List(new Field("item", arrowType(shape.item ?? newShape()), true));
    case "record":
      return new Struct([...(shape.fields ?? [])].map(([name, part]) => new Field(name, arrowType(part), true)));
  }
}

/** A type as people write it: `int32`, `string`, `list<{role: string, content: string}>`. */
export function typeName(type: DataType): string {
  if (DataType.isList(type) || DataType.isFixedSizeList(type)) return `list<${typeName(type.children[0]!.type)}>`;
  if (DataType.isMap(type))
    return `map<${type.children[0]!.type.children!.map((f: Field) => typeName(f.type)).join(", ")}>`;
  if (DataType.isStruct(type))
    return `{${type.children.map((f: Field) => `${f.name}: ${typeName(f.type)}`).join(", ")}}`;
  if (DataType.isDictionary(type)) return typeName(type.valueType);
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type)) return "string";
  if (DataType.isTimestamp(type) || DataType.isDate(type)) return "date";
  if (DataType.isDecimal(type)) return `decimal(${type.precision}, ${type.scale})`;
  return String(type).toLowerCase();
}
