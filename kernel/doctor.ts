import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cudaFindings } from "./doctor-cuda.js";
import { findSpecs, which } from "./install.js";
import { VERSION } from "./protocol/info.js";

/** One line of the report. */
export interface Finding {
  name: string;
  state: "ok" | "missing" | "note";
  found: string;
  /** How to get what is missing. */
  remedy?: string;
}

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const MIN_NODE = [20, 19] as const;

/** Looks at everything that the kernel and the library stand on. */
export function diagnose(): Finding[] {
  return [node(), addon(), processors(), memory(), ...cudaFindings(ROOT), kernelspec(), jupyter()];
}

/** The findings as a table of plain text. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const marks = { ok: "ok     ", missing: "missing", note: "-      " };
  const lines = findings.flatMap(({ name, state, found, remedy }) => {
    const line = `${name.padEnd(width)}  ${marks[state]}  ${found}`;
    return remedy === undefined ? [line] : [line, `${" ".repeat(width + 11)}→ ${remedy}`];
  });
  return [`tunebook ${VERSION}`, "", ...lines, ""].join("\n");
}

function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const enough = major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1]);
  const found = `${process.version} (${process.platform} ${process.arch}), ${process.execPath}`;
  if (enough) return { name: "Node", state: "ok", found };
  return { name: "Node", state: "missing", found, remedy: `Install Node ${MIN_NODE.join(".")} or newer.` };
}

// In a process of its own: an addon that does not fit this machine must not end the report.
function addon(): Finding {
  const name = "CPU backend";
  const file = join(ROOT, "build", "tunebook.node");
  const remedy = "Build it with `npm run build`; it needs a C++17 compiler.";
  if (!existsSync(file)) return { name, state: "missing", found: "build/tunebook.node is not there", remedy };
  const native = join(ROOT, "dist", "src", "tensor", "native.js");
  const code = `import(${JSON.stringify(native)}).then((m) => { const { isa, threads } = m.stats(); console.log(JSON.stringify({ isa, threads })); process.exit(0); })`;
  const asked = spawnSync(process.execPath, ["-e", code], { encoding: "utf8", timeout: 20_000 });
  try {
    const { isa, threads } = JSON.parse(asked.stdout) as { isa: string; threads: number };
    return { name, state: "ok", found: `${isa}, ${threads} ${threads === 1 ? "thread" : "threads"}` };
  } catch {
    const why =
      asked.signal ??
      asked.stderr
        .trim()
        .split("\n")
        .find((line) => line.includes("Error")) ??
      "no answer";
    return { name, state: "missing", found: `the addon cannot be used: ${why}`, remedy };
  }
}

function processors(): Finding {
  const quota = cpuQuota();
  const model = cpus()[0]?.model.trim() ?? "unknown";
  const limit = quota === undefined ? "no quota of the control group" : `control group's quota: ${quota} CPUs`;
  return { name: "Processors", state: "note", found: `${availableParallelism()} usable (${model}); ${limit}` };
}

function memory(): Finding {
  const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const limit = Number(readText("/sys/fs/cgroup/memory.max"));
  const found = Number.isFinite(limit) && limit > 0 ? `; control group's limit: ${gibibytes(limit)}` : "";
  return { name: "Memory", state: "note", found: gibibytes(totalmem()) + found };
}

/** CPUs that the control group may use, if it is limited. */
function cpuQuota(): number | undefined {
  const [quota, period] = readText("/sys/fs/cgroup/cpu.max").split(" ").map(Number);
  return quota !== undefined && period && Number.isFinite(quota) ? quota / period : undefined;
}

function kernelspec(): Finding {
  const name = "Kernelspec";
  const specs = findSpecs();
  const here = fileURLToPath(new URL("./main.js", import.meta.url));
  const remedy = "Install it with `tunebook install` (or --sys-prefix inside a Python environment).";
  if (specs.length === 0) return { name, state: "missing", found: "not installed", remedy };
  const broken = specs.find(({ works }) => !works);
  if (broken !== undefined) {
    return { name, state: "missing", found: `${broken.folder} starts ${broken.main}, which is gone`, remedy };
  }
  const lines = specs.map(({ folder, displayName, main }) => {
    const other = main === here ? "" : `, starts another copy: ${main}`;
    return `"${displayName}" in ${folder}${other}`;
  });
  return { name, state: "ok", found: lines.join("; ") };
}

function jupyter(): Finding {
  const name = "Jupyter";
  const lab = which("jupyter-lab") ?? which("jupyter");
  if (lab !== undefined) return { name, state: "ok", found: lab };
  const remedy = "For notebooks in a browser: `pip install jupyterlab`. `tunebook run` works without it.";
  return { name, state: "note", found: "not found on the path", remedy };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
