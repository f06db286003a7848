/**
 * Chat templates: the Jinja programs that models bring along, rendered as transformers does (trim_blocks, lstrip_blocks).
 * A template comes from a stranger, so it sees plain data and three functions, and its steps, time and output are capped; the engine's
 * watchdog ends what no cap between steps can, one slow call of a builtin.
 */
import * as jinja from "@huggingface/jinja";
import { TokenizerError } from "../errors.js";
import { describe } from "./json.js";
import { TimeLimitError, withTimeLimit } from "./time-limit.js";

/** One turn of a chat. Further fields (tool calls, images) are handed to the template as they are. */
export interface Message {
  role: string;
  content: unknown;
  [field: string]: unknown;
}

/** What a rendering may use up. */
export interface RenderLimits {
  /** Evaluated nodes of the template, default 5 million. */
  steps?: number;
  /** Seconds, default 10. */
  seconds?: number;
  /** Longest string, in UTF-16 units, default 8 million. */
  characters?: number;
}

const MAX_TEMPLATE = 1_000_000;
// The same bound as Jinja's sandbox.
const MAX_RANGE = 100_000;
const MAX_ITEMS = 1_000_000;
// Of all strings together, in multiples of the longest one.
const MAX_STRINGS = 50;

// Builtins whose time is not in proportion to what they are given, or that a long text can keep busy: only templates that name one run under the
// engine's watchdog, which costs as much as rendering a short chat.
const SLOW = /\b(?:sort|unique|replace|map|indent|selectattr|rejectattr|title)\b/;
// What is longer than this makes the clock be looked at.
const LONG = 10_000;

// The library's declarations cannot be resolved in an ES module, so what is used of it is declared here.
type Program = object;
type Environment = { set(name: string, value: unknown): unknown };
declare class LibraryInterpreter {
  constructor(environment: Environment);
  run(program: Program): { value: unknown };
  evaluate(node: object | undefined, environment: Environment): { value: unknown };
}
const { Environment, Interpreter, parse, tokenize } = jinja as unknown as {
  Environment: new () => Environment;
  Interpreter: typeof LibraryInterpreter;
  parse(tokens: object): Program;
  tokenize(source: string, options: { trim_blocks: boolean; lstrip_blocks: boolean }): object;
};

/** A template, parsed once. */
export class ChatTemplate {
  /** The Jinja source. */
  readonly source: string;
  readonly #program: Program;
  readonly #limits: Required<RenderLimits>;

  /** @throws TokenizerError when the template is no Jinja that can be read. */
  constructor(source: string, limits: RenderLimits = {}) {
    if (source.length > MAX_TEMPLATE)
      throw new TokenizerError(`The chat template has ${source.length} characters: at most ${MAX_TEMPLATE} are read.`);
    this.source = source;
    this.#limits = { steps: 5_000_000, seconds: 10, characters: 8_000_000, ...limits };
    try {
      this.#program = parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
    } catch (cause) {
      throw new TokenizerError(`The chat template cannot be read: ${(cause as Error).message}.`, { cause });
    }
  }

  /**
   * Renders with the given variables (`messages`, `add_generation_prompt`, `bos_token` …).
   *
   * @throws TokenizerError with the template's own words when it raises an exception, or when a limit is reached.
   */
  render(variables: Readonly<Record<string, unknown>>): string {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, plain(value, 0));
    const interpreter = new CappedInterpreter(environment, this.#limits);
    try {
      const run = () => interpreter.run(this.#program);
      const { value } = SLOW.test(this.source) ? withTimeLimit(this.#limits.seconds, run) : run();
      if (typeof value !== "string") throw new TokenizerError("The chat template gave no text.");
      return value;
    } catch (cause) {
      if (cause instanceof TokenizerError) throw cause;
      if (cause instanceof TimeLimitError)
        throw new TokenizerError(`The chat template was stopped: ${cause.message}.`, { cause });
      if (cause instanceof TemplateException)
        throw new TokenizerError(`The chat template refuses these messages: ${cause.message}`, { cause });
      throw new TokenizerError(`The chat template failed: ${(cause as Error).message}.`, { cause });
    }
  }
}

/** Raised by a template through `raise_exception`. */
class TemplateException extends Error {}

/** Counts every node that is evaluated; loops, macros and calls all come through here. */
class CappedInterpreter extends Interpreter {
  #steps: number;
  #characters = 0;
  readonly #limits: Required<RenderLimits>;
  readonly #deadline: number;

  constructor(environment: Environment, limits: Required<RenderLimits>) {
    super(environment);
    this.#limits = limits;
    this.#steps = limits.steps;
    this.#deadline = performance.now() + limits.seconds * 1000;
  }

  override evaluate(node: object | undefined, environment: Environment): { value: unknown } {
    if (--this.#steps < 0) throw new TokenizerError(`The chat template took more than ${this.#limits.steps} steps.`);
    const result = super.evaluate(node, environment);
    const { value } = result;
    const long = (typeof value === "string" || Array.isArray(value)) && value.length > LONG;
    if (((this.#steps & 1023) === 0 || long) && performance.now() > this.#deadline)
      throw new TokenizerError(`The chat template took more than ${this.#limits.seconds} s.`);
    if (Array.isArray(value) && value.length > MAX_ITEMS)
      throw new TokenizerError(`The chat template made a list of more than ${MAX_ITEMS} items.`);
    if (typeof value !== "string") return result;
    const { characters } = this.#limits;
    this.#characters += value.length;
    if (value.length > characters || this.#characters > MAX_STRINGS * characters)
      throw new TokenizerError(`The chat template made a text of more than ${characters} characters.`);
    return result;
  }
}

const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: unknown) => {
    throw new TemplateException(String(message));
  },
  range: (start: number, stop?: number, step = 1): number[] => {
    const [from, to] = stop === undefined || stop === null ? [0, start] : [start, stop];
    if (step === 0) throw new Error("range() needs a step other than 0");
    const count = Math.max(0, Math.ceil((to - from) / step));
    if (!(count <= MAX_RANGE)) throw new Error(`range() of ${count} numbers: at most ${MAX_RANGE} are made`);
    return Array.from({ length: count }, (_, i) => from + i * step);
  },
  strftime_now: (format: string) => strftime(new Date(), String(format)),
};

// Only own enumerable data reaches a template: no prototypes, no getters of classes, no functions but the ones above.
function plain(value: unknown, depth: number): unknown {
  if (depth > 32) throw new TokenizerError("The messages are nested deeper than 32 levels.");
  if (depth > 0 && typeof value === "function") return null;
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map((entry) => plain(entry, depth + 1));
  if (typeof value !== "object" || value === null) return value;
  const copy: Record<string, unknown> = Object.create(null);
  for (const [name, entry] of Object.entries(value)) copy[name] = plain(entry, depth + 1);
  return copy;
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = "January February March April May June July August September October November December".split(" ");

/** Python's strftime in its C locale, for the codes that templates use. */
export function strftime(date: Date, format: string): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const hour12 = date.getHours() % 12 === 0 ? 12 : date.getHours() % 12;
  const codes: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2, " "),
    B: MONTHS[date.getMonth()]!,
    b: MONTHS[date.getMonth()]!.slice(0, 3),
    A: DAYS[date.getDay()]!,
    a: DAYS[date.getDay()]!.slice(0, 3),
    H: two(date.getHours()),
    I: two(hour12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    p: date.getHours() < 12 ? "AM" : "PM",
    "%": "%",
  };
  return format.replace(/%([a-zA-Z%])/g, (whole, code: string) => (Object.hasOwn(codes, code) ? codes[code]! : whole));
}

/**
 * Checks that a value is a list of messages, each with a role.
 *
 * @throws TokenizerError saying which one is not.
 */
export function checkMessages(messages: unknown): asserts messages is readonly Message[] {
  if (!Array.isArray(messages))
    throw new TokenizerError(`Expected a list of messages { role, content }, got ${describe(messages)}.`);
  messages.forEach((message: unknown, index) => {
    const role = typeof message === "object" && message !== null ? (message as Message).role : undefined;
    if (typeof role !== "string")
      throw new TokenizerError(
        `Message ${index} should be { role: "user" | "assistant" | "system", content }, got ${describe(message)}${role === undefined ? "" : ` with the role ${describe(role)}`}.`,
      );
  });
}
