// Processes that take turns: what two programs are measured by when a machine drifts from minute to minute.
import { spawn } from "node:child_process";
import { availableParallelism, loadavg } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const threads = Number(process.env.TUNEBOOK_THREADS ?? availableParallelism());

/** A process that answers one JSON line with one JSON line, and computes only when asked. */
export class Contender {
  constructor(name, command, args) {
    this.name = name;
    this.replies = [];
    this.child = spawn(command, args, {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, TUNEBOOK_THREADS: String(threads), OMP_NUM_THREADS: String(threads) },
    });
    this.errors = "";
    this.child.stderr.on("data", (chunk) => {
      this.errors = (this.errors + chunk).slice(-4000);
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async reply() {
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} ended early:\n${this.errors}`);
      if (value.startsWith("{")) return JSON.parse(value);
    }
  }

  /** Its first line, with what it tells of itself (`name` replaces the one given). */
  async ready() {
    Object.assign(this, await this.reply());
  }

  ask(request) {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    return this.reply();
  }

  close() {
    this.child.kill("SIGKILL");
  }

  /** All numbers of one field of its replies, ascending. */
  all(field) {
    return this.replies.flatMap((reply) => reply[field]).sort((a, b) => a - b);
  }

  get last() {
    return this.replies.at(-1);
  }
}

/**
 * Asks every contender `request` once to settle caches, allocators and clocks, then `rounds` times in turns, the order changing from round to round.
 * The answers of the rounds stay in `replies`; all processes are ended.
 */
export async function takeTurns(contenders, rounds, request, settling = request) {
  try {
    for (const each of contenders) {
      await each.ready();
      await each.ask(settling);
    }
    for (let round = 0; round < rounds; round++) {
      for (const each of round % 2 === 0 ? contenders : [...contenders].reverse()) {
        each.replies.push(await each.ask(request));
      }
    }
  } finally {
    for (const each of contenders) each.close();
  }
}

export const median = (sorted) => (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;

/** Three digits. */
export const short = (n) => Number(n.toPrecision(3));

/** How many want the cores: the mean of the last minute. */
export const busyness = () => loadavg()[0].toFixed(2);

export const mebibytes = (bytes) => Math.round(bytes / 2 ** 20);

/** "1.52x by the best, 1.48x by medians" of two ascending lists of seconds. */
export function ratio(ours, theirs) {
  return `${(theirs[0] / ours[0]).toFixed(2)}x by the best, ${(median(theirs) / median(ours)).toFixed(2)}x by medians`;
}

/** Says so where medians tell more about the neighbours than about the programs. */
export function warnIfBusy(lists) {
  // Threads that wait for each other in a loop, as torch's and llama.cpp's do, lose far more than their share when others want the cores.
  if (lists.some((seconds) => median(seconds) > 1.5 * seconds[0])) {
    console.log("The machine was busy with other work (a median is far above its best): go by the best.");
  }
}
