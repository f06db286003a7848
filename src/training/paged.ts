import type { Parameter } from "../nn/module.js";
import { DTYPE_BYTES } from "../tensor/dtype.js";
import { emptyHost, part, Transfer } from "../tensor/host.js";
import { fill } from "../tensor/ops/elementwise.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor } from "../tensor/tensor.js";
import type { OptimizerState, StateLayout } from "./optimizer.js";

/** Bytes of states that are copied at once. */
export const PAGE_BYTES = 32 << 20;
const ALIGN = 256;

/** Some parameters' states in one piece of host memory. */
interface Page {
  parameters: Parameter[];
  /** Where each state begins, in the order of the parameters and of their layouts. */
  offsets: number[][];
  bytes: number;
  host: Tensor;
}

/**
 * Optimizer states in a GPU's host memory. A step copies them page by page into the GPU's memory and back, beside the work on the page before, so
 * that three pages at most stand there. Copies are asynchronous and explicit; nothing is left to page faults.
 */
export class PagedStates {
  private readonly pages: Page[] = [];
  private readonly views = new Map<Parameter, OptimizerState>();
  private readonly layout: (p: Parameter) => StateLayout;

  constructor(parameters: readonly Parameter[], layout: (p: Parameter) => StateLayout, pageBytes = PAGE_BYTES) {
    this.layout = layout;
    let group: Parameter[] = [];
    let bytes = 0;
    for (const p of parameters) {
      const own = layout(p).reduce((n, [, dtype, size]) => n + aligned(size * DTYPE_BYTES[dtype]), 0);
      if (group.length > 0 && bytes + own > pageBytes) {
        this.add(group);
        group = [];
        bytes = 0;
      }
      group.push(p);
      bytes += own;
    }
    if (group.length > 0) this.add(group);
  }

  private add(parameters: Parameter[]): void {
    let bytes = 0;
    const offsets = parameters.map((p) =>
      this.layout(p).map(([, dtype, size]) => {
        const at = bytes;
        bytes += aligned(size * DTYPE_BYTES[dtype]);
        return at;
      }),
    );
    const host = outsideScope(() => fill(emptyHost([bytes], "uint8"), 0));
    this.pages.push({ parameters, offsets, bytes, host });
  }

  /** A parameter's states where they are kept; to be read and set between steps. */
  state(p: Parameter): OptimizerState {
    let state = this.views.get(p);
    if (!state) {
      const page = this.pages.find((each) => each.parameters.includes(p))!;
      state = outsideScope(() => this.statesIn(page, page.host, [p])[0]!);
      this.views.set(p, state);
    }
    return state;
  }

  private statesIn(page: Page, memory: Tensor, wanted: readonly Parameter[]): OptimizerState[] {
    return wanted.map((p) => {
      const offsets = page.offsets[page.parameters.indexOf(p)]!;
      const state = {} as OptimizerState;
      this.layout(p).forEach(([key, dtype, size], i) => {
        state[key] = part(memory, size === p.size ? p.shape : [size], dtype, offsets[i]!);
      });
      return state;
    });
  }

  /** Calls `use` with the wanted parameters of each page and their states in the GPU's memory, which it changes. */
  each(
    wanted: ReadonlySet<Parameter>,
    use: (parameters: readonly Parameter[], states: readonly OptimizerState[]) => void,
  ): void {
    const pages = this.pages.filter((page) => page.parameters.some((p) => wanted.has(p)));
    const moving: Moving[] = []; // at most the page before, this one and the next
    const settle = (m: Moving): void => {
      m.transfer.wait();
      m.memory.dispose();
      moving.splice(moving.indexOf(m), 1);
    };
    const fetch = (page: Page): Moving => {
      const memory = outsideScope(() => empty([page.bytes], "uint8", "cuda"));
      const m = { memory, transfer: new Transfer(page.host, memory) };
      moving.push(m);
      return m;
    };
    try {
      let here = pages[0] && fetch(pages[0]);
      let before: Moving | undefined;
      pages.forEach((page, i) => {
        const now = here!;
        const after = pages[i + 1];
        here = after && fetch(after);
        now.transfer.wait();
        const parameters = page.parameters.filter((p) => wanted.has(p));
        const states = outsideScope(() => this.statesIn(page, now.memory, parameters));
        use(parameters, states);
        for (const state of states) for (const t of Object.values(state) as Tensor[]) t.dispose();
        if (before) settle(before);
        now.transfer = new Transfer(now.memory, page.host);
        before = now;
      });
    } finally {
      for (const m of [...moving]) settle(m);
    }
  }

  /** Bytes of all states. */
  get bytes(): number {
    return this.pages.reduce((n, page) => n + page.bytes, 0);
  }

  dispose(): void {
    for (const state of this.views.values()) for (const t of Object.values(state) as Tensor[]) t.dispose();
    this.views.clear();
    for (const page of this.pages.splice(0)) page.host.dispose();
  }
}

/** A page's memory on the GPU, and the copy to it or from it. */
interface Moving {
  memory: Tensor;
  transfer: Transfer;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGN) * ALIGN;
}
