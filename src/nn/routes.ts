import { concat, slice } from "../tensor/ops/layout.js";
import type { Tensor } from "../tensor/tensor.js";

/** Consecutive rows of a flat batch that go through one adapter; `undefined`: through none. */
export interface RowRoute {
  readonly adapter: string | undefined;
  readonly begin: number;
  readonly end: number;
}

let current: readonly RowRoute[] | undefined;

/** The routes of the rows that are under way; without any, each layer's active adapter is for all of them. */
export function rowRoutes(): readonly RowRoute[] | undefined {
  return current;
}

/** Runs `fn` with routes, which cover all rows of what goes through layers meanwhile. */
export function withRoutes<T>(routes: readonly RowRoute[] | undefined, fn: () => T): T {
  const before = current;
  current = routes;
  try {
    return fn();
  } finally {
    current = before;
  }
}

/** Routes of rows whose adapters are given in order, `rows[i]` of them each. */
export function routesOf(adapters: readonly (string | undefined)[], rows: readonly number[]): RowRoute[] {
  const routes: RowRoute[] = [];
  let begin = 0;
  adapters.forEach((adapter, i) => {
    const end = begin + rows[i]!;
    const last = routes.at(-1);
    if (last && last.adapter === adapter) routes[routes.length - 1] = { ...last, end };
    else routes.push({ adapter, begin, end });
    begin = end;
  });
  return routes;
}

/** The result of each route's rows by themselves, one after another. No gradient. */
export function eachRoute<T extends readonly Tensor[]>(
  routes: readonly RowRoute[],
  inputs: T,
  forward: (adapter: string | undefined, inputs: T) => Tensor[],
): Tensor[] {
  const pieces = routes.map(({ adapter, begin, end }) =>
    withRoutes(undefined, () =>
      forward(adapter, (routes.length === 1 ? inputs : inputs.map((x) => slice(x, 0, begin, end))) as unknown as T),
    ),
  );
  if (pieces.length === 1) return pieces[0]!;
  return pieces[0]!.map((_, i) => concat(pieces.map((piece) => piece[i]!)));
}
