/** Code from strangers (patterns of a tokenizer, templates of a chat) with a limit on its time. */
import { Script } from "node:vm";

// The engine's watchdog ends whatever runs inside of such a call, single regular expressions and builtins included.
const KEY = Symbol.for("tunebook.time-limit");
const script = new Script("globalThis[Symbol.for('tunebook.time-limit')]()");
let running = false;

/** The time is over. */
export class TimeLimitError extends Error {}

/**
 * Calls a function and gives what it gives, or ends it after some seconds. It costs about 0.2 ms. A call inside of another has the outer one's limit.
 *
 * @throws TimeLimitError when the time is over; what the function throws otherwise.
 */
export function withTimeLimit<T>(seconds: number, fn: () => T): T {
  if (running) return fn();
  running = true;
  Object.defineProperty(globalThis, KEY, { value: fn, configurable: true, enumerable: false });
  try {
    return script.runInThisContext({ timeout: Math.max(1, Math.round(seconds * 1000)) }) as T;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT")
      throw new TimeLimitError(`it took more than ${seconds} s`, { cause });
    throw cause;
  } finally {
    running = false;
    Reflect.deleteProperty(globalThis, KEY);
  }
}
