// Long runs: cells of every kind, and what the kernel's processes hold after them. `npm run soak` does a thousand.
import { readdirSync, readFileSync } from "node:fs";
import { execute, sleep, type TestKernel } from "./support.js";

/** What a kernel and all processes below it hold. */
export interface Held {
  cells: number;
  /** Megabytes, shared pages by their share; 0 where /proc does not tell. */
  memory: number;
  /** Open file descriptors. */
  files: number;
  processes: number;
}

const KINDS: readonly ((i: number) => string)[] = [
  (i) => `const value${i} = { n: ${i}, list: [${i}, ${i + 1}] };`,
  (i) => `function f${i}(x: number): number { return x * ${i}; }\nf${i}(2)`,
  (i) => `for (let k = 0; k < 50; k++) console.log("line", k, ${i});`,
  (i) => `class C${i} { v = ${i}; get twice() { return this.v * 2; } }\nnew C${i}().twice`,
  (i) => `display({ "text/html": "<b>${i}</b>", "text/plain": "${i}" }, { id: "d" + ${i % 7} });`,
  (i) => `await new Promise((done) => setTimeout(done, 1)); let late${i} = ${i};`,
  (i) => `throw new Error("cell ${i}");`,
  (i) => `import { basename } from "node:path";\nbasename("a/${i}")`,
  (i) => `const wrong: number = "${i}";`,
  (i) => `void Promise.reject(new Error("nobody waits for ${i}"));`,
  (i) => `comms.open("front", { n: ${i} }, { buffers: [new Uint8Array(1_000)] }).close();`,
  (i) => `require("node:child_process").execFileSync("true"); ${i}`,
];

const IDLE_MS = 1_700;

/** A cell of one kind after another. */
export function cell(i: number): string {
  return KINDS[i % KINDS.length]!(i);
}

/** Runs cells and notes what is held after every `every` of them. */
export async function soak(
  kernel: TestKernel,
  cells: number,
  every: number,
  tell = (_: Held): void => {},
): Promise<Held[]> {
  const notes: Held[] = [];
  const note = async (count: number): Promise<void> => {
    // The compiler's thread collects its garbage when nobody waits for it.
    await sleep(IDLE_MS);
    notes.push(held(kernel, count));
    tell(notes.at(-1)!);
  };
  for (let i = 0; i < cells; i++) {
    if (i % every === 0) await note(i);
    await execute(kernel.client, cell(i));
  }
  await note(cells);
  return notes;
}

/** What the kernel's processes hold now. */
export function held(kernel: TestKernel, cells: number): Held {
  const pids = below(kernel.process.pid!);
  const memory = pids.reduce((sum, pid) => sum + pss(pid), 0);
  const files = pids.reduce((sum, pid) => sum + descriptors(pid), 0);
  return { cells, memory, files, processes: pids.length };
}

function below(pid: number): number[] {
  const children = (): number[] => {
    try {
      return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
        readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean).map(Number),
      );
    } catch {
      return [];
    }
  };
  return [pid, ...children().flatMap(below)];
}

function pss(pid: number): number {
  try {
    const kilobytes = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1];
    return Number(kilobytes ?? 0) / 1_000;
  } catch {
    return 0;
  }
}

function descriptors(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return 0;
  }
}
