import { readFileSync } from "node:fs";

/** What is known about the end of an executor. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The last of what it wrote to its standard error. */
  stderr: string;
  /** Out-of-memory kills in this control group while it lived. */
  oomKills: number;
  /** The kernel process itself killed it, because an interrupt did not stop it. */
  unstoppable: boolean;
}

/** One sentence on why the executor has ended, from the evidence. */
export function explain(ending: Ending): string {
  const { code, signal, stderr } = ending;
  if (ending.unstoppable) return "The cell did not stop when it was interrupted, so its process was ended.";
  if (/JavaScript heap out of memory/.test(stderr)) {
    return "The process ran out of JavaScript heap (raise it with TUNEBOOK_EXECUTOR_OPTIONS=--max-old-space-size=MEGABYTES).";
  }
  if (signal === "SIGKILL" && ending.oomKills > 0) {
    return "The system's out-of-memory killer ended the process: this container or machine has no more memory.";
  }
  if (signal === "SIGKILL") {
    return "The process was killed (SIGKILL): by someone, or by the system because memory ran out.";
  }
  if (signal === "SIGSEGV" || signal === "SIGBUS" || signal === "SIGILL" || signal === "SIGFPE") {
    return `Native code crashed (${signal}).`;
  }
  if (signal !== null) return `The process was ended by ${signal}.`;
  if (code === 134) return "The process aborted (SIGABRT); its last words are above.";
  return `The process ended by itself with exit code ${code ?? "unknown"} (process.exit or a fatal error).`;
}

/** Out-of-memory kills counted so far in this process's control group; 0 where that is not known. */
export function oomKills(): number {
  try {
    const group = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
    for (const folder of [`/sys/fs/cgroup${group}`, "/sys/fs/cgroup"]) {
      try {
        return Number(/^oom_kill (\d+)$/m.exec(readFileSync(`${folder}/memory.events`, "utf8"))?.[1] ?? 0);
      } catch {}
    }
  } catch {}
  return 0;
}
