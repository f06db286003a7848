import type { CausalLM } from "../models/causal.js";
import type { Module } from "../nn/module.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, Tensor, view } from "../tensor/tensor.js";

/** Calls of modules that are looked at; a forward pass of a hundred layers has about a thousand. */
const MOST_CALLS = 100_000;
const METHODS = ["forward", "forwardAdd"] as const;

type Method = (...args: unknown[]) => unknown;

/**
 * Runs `pass`, a forward pass (a backward pass may follow), and names the module whose output is the first that holds NaN or infinity; `undefined`
 * when none does. A module is done before the one that calls it: so it is the innermost.
 */
export async function firstNonFinite(model: CausalLM, pass: () => void): Promise<string | undefined> {
  const names: string[] = [];
  const marks: Tensor[] = []; // 0, or NaN where something is not finite: 0 · x
  const note = (name: string, result: unknown): void => {
    for (const y of Array.isArray(result) ? result : [result]) {
      if (!(y instanceof Tensor) || y.dtype === "int32" || names.length >= MOST_CALLS) continue;
      names.push(name);
      const zero = (): Tensor => noGrad(() => (y.dtype === "float32" ? y : y.to("float32")).mul(0).sum());
      marks.push(outsideScope(() => scope(zero)));
    }
  };
  const restore: (() => void)[] = [];
  for (const [name, module] of model.namedModules()) {
    // The model itself is asked for its hidden states, which its last norm makes.
    if (name !== "") for (const method of METHODS) watch(module, method, (result) => note(name, result), restore);
  }
  try {
    pass();
  } finally {
    for (const undo of restore) undo();
  }
  if (marks.length === 0) return undefined;
  const all = outsideScope(() => fill(empty([marks.length], "float32", model.device), 0));
  try {
    scope(() => noGrad(() => marks.forEach((mark, i) => void addScaled(view(all, [1], i), mark))));
    const values = await all.data();
    const first = values.findIndex((value) => value !== 0);
    return first < 0 ? undefined : names[first];
  } finally {
    all.dispose();
    for (const mark of marks) mark.dispose();
  }
}

/** Has `seen` called with what a module's method returns, until it is undone. */
function watch(module: Module, method: string, seen: (result: unknown) => void, restore: (() => void)[]): void {
  const holder = module as unknown as Record<string, unknown>;
  const given = holder[method];
  if (typeof given !== "function") return;
  const own = Object.hasOwn(holder, method);
  holder[method] = function (this: unknown, ...args: unknown[]): unknown {
    const result = (given as Method).apply(this, args);
    seen(result);
    return result;
  };
  restore.push(() => {
    if (own) holder[method] = given;
    else delete holder[method];
  });
}
