import { readFileSync } from "node:fs";
import { DEVICE_LOST } from "./channel.js";

/** Out-of-memory kills: in the control group of the kernel, and on the whole machine. */
export interface OomKills {
  group: number;
  machine: number;
}

/** What is known about the end of an executor. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** The last of what it wrote to its standard error. */
  stderr: string;
  /** Out-of-memory kills since its last cell began. */
  oomKills: OomKills;
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
  if (signal === "SIGKILL" && ending.oomKills.group > 0) {
    return "The system's out-of-memory killer ended the process: this container or machine has no more memory.";
  }
  if (signal === "SIGKILL" && ending.oomKills.machine > 0) {
    return "The process was killed, most likely by the system's out-of-memory killer, which has struck on this machine meanwhile.";
  }
  if (signal === "SIGKILL") {
    return "The process was killed (SIGKILL): by someone, or by the system because memory ran out.";
  }
  if (signal === "SIGSEGV" || signal === "SIGBUS" || signal === "SIGILL" || signal === "SIGFPE") {
    return `Native code crashed (${signal}).`;
  }
  if (signal !== null) return `The process was ended by ${signal}.`;
  if (code === DEVICE_LOST) return "A device has failed for good, so the process that used it was ended.";
  if (code === 134) return "The process aborted (SIGABRT); its last words are above.";
  return `The process ended by itself with exit code ${code ?? "unknown"} (process.exit or a fatal error).`;
}

/**
 * Out-of-memory kills counted so far: in this process's control group (version 2, 1, or a container's own root), and on the machine. 0 where
 * that is not known.
 */
export function oomEvidence(read: (path: string) => string = (path) => readFileSync(path, "utf8")): OomKills {
  const count = (path: string): number | undefined => {
    try {
      return Number(/^oom_kill (\d+)$/m.exec(read(path))?.[1] ?? 0);
    } catch {
      return undefined;
    }
  };
  let groups = "";
  try {
    groups = read("/proc/self/cgroup");
  } catch {}
  const second = /^0::(.*)$/m.exec(groups)?.[1] ?? "/";
  const first = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(groups)?.[1];
  const places = [
    ...(first === undefined ? [] : [`/sys/fs/cgroup/memory${first}/memory.oom_control`]),
    `/sys/fs/cgroup${second}/memory.events`,
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
  ];
  let group: number | undefined;
  for (const place of places) group ??= count(place);
  return { group: group ?? 0, machine: count("/proc/vmstat") ?? 0 };
}
