/**
 * JSON from outside. Two readers: a strict one for headers and configs (duplicates, deep nesting and integers above 2^53 are
 * refused, objects have no prototype), and a fast one for large files of tokenizers, whose fields are then taken one by one.
 */

/** A value of JSON; objects have a null prototype, so only own properties can be seen. */
export type Json = null | boolean | number | string | Json[] | JsonObject;
/** An object of JSON. */
export interface JsonObject {
  [name: string]: Json;
}

/** What is wrong with a JSON text, and where. Callers wrap it in their own error class. */
export class JsonError extends Error {
  /** Characters from the beginning of the text. */
  readonly position: number;

  constructor(message: string, position: number) {
    super(`${message} at character ${position}`);
    this.name = "JsonError";
    this.position = position;
  }
}

/** Options of {@link parseStrict}. */
export interface StrictOptions {
  /** Deepest nesting, default 64. */
  maxDepth?: number;
  /** Most values in the text, counting nested ones; default 4 million. */
  maxValues?: number;
}

/** True for an object of JSON (no array, not null). */
export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An own property, or undefined: never something inherited. */
export function own(object: object, name: string): Json | undefined {
  return Object.hasOwn(object, name) ? (object as JsonObject)[name] : undefined;
}

/** Words for a value in an error message, short. */
export function describe(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  return String(value);
}

/**
 * Parses by RFC 8259 with nothing added, and refuses duplicate names, nesting beyond `maxDepth` and integers beyond ±2^53.
 *
 * @throws JsonError with the character where it went wrong.
 */
export function parseStrict(text: string, options: StrictOptions = {}): Json {
  return new StrictParser(text, options.maxDepth ?? 64, options.maxValues ?? 4_000_000).parse();
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const LITERALS: ReadonlyMap<string, [string, Json]> = new Map([
  ["t", ["true", true]],
  ["f", ["false", false]],
  ["n", ["null", null]],
]);

class StrictParser {
  readonly #text: string;
  readonly #maxDepth: number;
  #left: number;
  #at = 0;

  constructor(text: string, maxDepth: number, maxValues: number) {
    this.#text = text;
    this.#maxDepth = maxDepth;
    this.#left = maxValues;
  }

  parse(): Json {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#error("expected the end of the text");
    return value;
  }

  #error(message: string, position = this.#at): JsonError {
    return new JsonError(message, position);
  }

  #space(): void {
    for (;;) {
      const c = this.#text.charCodeAt(this.#at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
      this.#at++;
    }
  }

  #value(depth: number): Json {
    if (depth > this.#maxDepth) throw this.#error(`nested deeper than ${this.#maxDepth}`);
    if (--this.#left < 0) throw this.#error("too many values");
    this.#space();
    const c = this.#text[this.#at];
    if (c === undefined) throw this.#error("the text ends too early");
    if (c === "{") return this.#object(depth);
    if (c === "[") return this.#array(depth);
    if (c === '"') return this.#string();
    const literal = LITERALS.get(c);
    if (literal === undefined) return this.#number();
    if (!this.#text.startsWith(literal[0], this.#at)) throw this.#error(`expected ${literal[0]}`);
    this.#at += literal[0].length;
    return literal[1];
  }

  #object(depth: number): JsonObject {
    const object: JsonObject = Object.create(null);
    this.#at++;
    this.#space();
    if (this.#take("}")) return object;
    for (;;) {
      this.#space();
      const start = this.#at;
      const name = this.#string();
      if (Object.hasOwn(object, name)) throw this.#error(`the name ${describe(name)} appears twice`, start);
      this.#space();
      if (!this.#take(":")) throw this.#error('expected ":"');
      object[name] = this.#value(depth + 1);
      this.#space();
      if (this.#take("}")) return object;
      if (!this.#take(",")) throw this.#error('expected "," or "}"');
    }
  }

  #array(depth: number): Json[] {
    const array: Json[] = [];
    this.#at++;
    this.#space();
    if (this.#take("]")) return array;
    for (;;) {
      array.push(this.#value(depth + 1));
      this.#space();
      if (this.#take("]")) return array;
      if (!this.#take(",")) throw this.#error('expected "," or "]"');
    }
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #string(): string {
    const start = this.#at;
    if (this.#text[start] !== '"') throw this.#error("expected a string");
    let escaped = false;
    for (let at = start + 1; at < this.#text.length; at++) {
      const c = this.#text.charCodeAt(at);
      if (c === 0x22) {
        this.#at = at + 1;
        return escaped ? this.#unescape(start) : this.#text.slice(start + 1, at);
      }
      if (c < 0x20) throw this.#error("a control character in a string", at);
      if (c === 0x5c) {
        escaped = true;
        at++;
      }
    }
    throw this.#error("a string has no end", start);
  }

  #unescape(start: number): string {
    try {
      return JSON.parse(this.#text.slice(start, this.#at)) as string;
    } catch {
      throw this.#error("a string has an escape that JSON does not know", start);
    }
  }

  #number(): number {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null) throw this.#error("expected a value");
    const value = Number(match[0]);
    const whole = match[1] === undefined && match[2] === undefined;
    if (whole && !Number.isSafeInteger(value)) throw this.#error(`the integer ${match[0]} is beyond 2^53`);
    if (!Number.isFinite(value)) throw this.#error(`the number ${match[0]} is too large`);
    this.#at = NUMBER.lastIndex;
    return value;
  }
}
