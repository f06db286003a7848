import type { Cell } from "./cell.js";

/**
 * The cell whose work runs at this moment, as far as that is known. Compiled cells say so themselves (compile/contexts.ts
 * puts the calls in), since async hooks are out of the question: with them an interrupted Node 20 aborts.
 *
 * Known while a cell's own code runs, that of asynchronous functions after each `await` too, and in callbacks of timers.
 * Unknown in callbacks of promises (`.then`) and of events: there the cell whose text holds the `console` counts.
 */
export class Contexts<T extends object> {
  #now: T | undefined;

  /** Whose work runs now; undefined where nobody has said. */
  get now(): T | undefined {
    return this.#now;
  }

  /** Runs a function as work of a cell; what it leaves behind asynchronously is accounted for by itself. */
  run<R>(whose: T | undefined, work: () => R): R {
    const before = this.#now;
    this.#now = whose;
    try {
      return work();
    } finally {
      this.#now = before;
    }
  }

  /** Forgets whose work runs: a stopped cell has not said that it ended. */
  clear(): void {
    this.#now = undefined;
  }

  /** A call of an asynchronous function. */
  enter(): Activation {
    return new Activation(this.#now, (whose) => {
      this.#now = whose as T | undefined;
    });
  }
}

/** The executor's one account. */
export const contexts: Contexts<Cell> = new Contexts();

/** One call of an asynchronous function: under which cell it was called, and whether it runs on its own by now. */
export class Activation {
  readonly #whose: object | undefined;
  readonly #set: (whose: object | undefined) => void;
  #waiting = false;
  /** After the first `await` nobody below on the stack belongs to a cell. */
  #resumed = false;

  constructor(whose: object | undefined, set: (whose: object | undefined) => void) {
    this.#whose = whose;
    this.#set = set;
  }

  /** About to await a value. */
  off<V>(value: V): V {
    this.#waiting = true;
    if (this.#resumed) this.#set(undefined);
    return value;
  }

  /** After an `await`, or where one may have thrown. */
  on<V>(value: V): V {
    if (this.#waiting) this.again();
    return value;
  }

  /**
   * What a loop with `for await` goes over. The loop calls `next()` by itself, and so the body of an asynchronous generator, which
   * belongs to this cell too.
   */
  each<V>(values: V): V {
    this.#waiting = true;
    const begin = (values as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator];
    if (typeof begin !== "function") return this.off(values);
    const call = <R>(work: () => R): R => {
      this.#set(this.#whose);
      try {
        return work();
      } finally {
        if (this.#resumed) this.#set(undefined);
      }
    };
    return {
      [Symbol.asyncIterator]: () => {
        const iterator = begin.call(values) as AsyncIterator<unknown>;
        const { return: end } = iterator;
        return {
          next: (...given: [] | [unknown]) => call(() => iterator.next(...given)),
          ...(typeof end === "function" ? { return: (value: unknown) => call(() => end.call(iterator, value)) } : {}),
        };
      },
    } as V;
  }

  /** In and after a loop that awaits by itself. */
  again(): void {
    this.#waiting = false;
    this.#resumed = true;
    this.#set(this.#whose);
  }

  leave(): void {
    if (this.#resumed) this.#set(undefined);
  }
}
