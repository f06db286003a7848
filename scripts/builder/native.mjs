// Compiles native/ into build/tunebook.node with the C++ compiler alone: incremental, two jobs at a time, no generator and no download.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { writeChanged } from "./ops.mjs";

const require = createRequire(import.meta.url);

const BASE = [
  ..."-std=c++17 -O3 -fPIC -pthread -fvisibility=hidden -fvisibility-inlines-hidden -Wall -Wextra".split(" "),
  // Errors of libm and floating-point traps are not looked at; sums are reordered only where a pragma allows it.
  ..."-fno-math-errno -fno-trapping-math -fopenmp-simd".split(" "),
  "-DNAPI_VERSION=9",
];

/** g++ 12 has no name for the newest processors, so AVX-512 is spelled out. cpuid.cc asks for exactly these features. */
const ISA = {
  portable: ["-DTB_ISA=portable"],
  avx2: ["-DTB_ISA=avx2", "-DTB_AVX2=1", ..."-mavx2 -mfma -mf16c -mbmi2 -mtune=haswell".split(" ")],
  avx512: [
    ..."-DTB_ISA=avx512 -DTB_AVX2=1 -DTB_AVX512=1".split(" "),
    ..."-mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi".split(" "),
    ..."-mtune=skylake-avx512 -mprefer-vector-width=512".split(" "),
  ],
};
ISA.avx512bf16 = [...ISA.avx512.slice(1), "-DTB_ISA=avx512bf16", "-DTB_BF16=1", "-mavx512bf16"];

/** Where to get a compiler, by system. */
const REMEDY = {
  linux:
    "Debian, Ubuntu: sudo apt install g++. Fedora: sudo dnf install gcc-c++. Arch: sudo pacman -S gcc. Alpine: apk add g++ linux-headers.",
  darwin: "macOS: xcode-select --install.",
  win32: "Windows is reached through WSL: in it, sudo apt install g++.",
};

function findCompiler() {
  const asked = process.env.CXX;
  const candidates = asked ? [asked] : ["g++", "clang++", "c++"];
  for (const command of candidates) {
    const [program, ...rest] = command.split(" ");
    const out = spawnSync(program, [...rest, "--version"], { encoding: "utf8" });
    if (out.status === 0)
      return {
        program,
        rest,
        version: out.stdout.split("\n")[0],
        isGcc: out.stdout.includes("Free Software Foundation"),
      };
  }
  const tried = asked ? `CXX names "${asked}", which does not run` : `none of ${candidates.join(", ")} was found`;
  throw new Error(
    `The native kernels need a C++17 compiler (GCC 10 or newer, or Clang 13 or newer), and ${tried}.\n` +
      `${REMEDY[process.platform] ?? "Install GCC or Clang."}\nOr set CXX to the compiler's path. Then run the build again.`,
  );
}

/** The instruction sets that can be built for this machine's architecture. */
function isas() {
  return process.arch === "x64" ? ["portable", "avx2", "avx512", "avx512bf16"] : ["portable"];
}

/** native/**.cc with their instruction sets, read from the first line of files in native/cpu. */
function sources(root) {
  const list = [];
  for (const file of readdirSync(join(root, "native")).filter((f) => f.endsWith(".cc"))) {
    list.push({ path: `native/${file}`, isas: [] });
  }
  for (const file of readdirSync(join(root, "native/cpu")).filter((f) => f.endsWith(".cc"))) {
    const path = `native/cpu/${file}`;
    const first = readFileSync(join(root, path), "utf8").split("\n", 1)[0];
    const marker = /^\/\/ isa: ([a-z0-9 ]+)$/.exec(first.trim());
    if (!marker)
      throw new Error(
        `${path}: the first line must be "// isa: portable avx2 avx512" or "// isa: none" (see native/cpu/parallel.h)`,
      );
    const names = marker[1].trim() === "none" ? [] : marker[1].trim().split(/\s+/);
    for (const n of names) if (!(n in ISA)) throw new Error(`${path}: no instruction set is named "${n}"`);
    list.push({
      path,
      isas: names.filter((n) => isas().includes(n)),
      family: names.length > 0 ? basename(file, ".cc") : undefined,
    });
  }
  return list;
}

/** build/cpu.families.gen.h: which register_<family> functions exist, so that native/cpu/backend.cc can call them. */
function writeFamilies(root, files) {
  const families = files.filter((f) => f.family);
  const text = isas().map((isa) => {
    const names = families.filter((f) => f.isas.includes(isa)).map((f) => f.family);
    return [
      `namespace ${isa} {`,
      ...names.map((n) => `void register_${n}(Backend& b);`),
      "inline void register_all(Backend& b) {",
      ...names.map((n) => `  register_${n}(b);`),
      ...(names.length === 0 ? ["  (void)b;"] : []),
      `}`,
      `}  // namespace ${isa}`,
      "",
    ].join("\n");
  });
  writeChanged(
    `${root}/build/cpu.families.gen.h`,
    `// Generated: the op families of native/cpu.\n#pragma once\n#include "backend.h"\n\n#define TB_X86 ${isas().length > 1 ? 1 : 0}\n\nnamespace tunebook {\n\n${text.join("\n")}\n}  // namespace tunebook\n`,
  );
}

/** Files that an object was made from, from the compiler's own dependency file. */
function dependencies(depFile) {
  if (!existsSync(depFile)) return undefined;
  return readFileSync(depFile, "utf8")
    .replace(/\\\n/g, " ")
    .replace(/^[^:]*:/, "")
    .split(/(?<!\\)\s+/)
    .filter((p) => p !== "")
    .map((p) => p.replace(/\\ /g, " "));
}

/** Whether an object was made with the same flags and after every file that it depends on was last changed. */
export function isFresh(job) {
  const stamp = `${job.object}.flags`;
  if (!existsSync(job.object) || !existsSync(stamp) || readFileSync(stamp, "utf8") !== job.key) return false;
  const made = statSync(job.object).mtimeMs;
  const files = dependencies(`${job.object}.d`);
  if (!files) return false;
  return files.every((f) => {
    const path = f.startsWith("/") ? f : join(job.cwd, f);
    return existsSync(path) && statSync(path).mtimeMs <= made;
  });
}

/** Runs a program and gathers what it prints. */
export function run(program, args, cwd) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    child.stdout.on("data", (d) => (text += d));
    child.stderr.on("data", (d) => (text += d));
    child.on("error", (e) => resolve({ ok: false, text: String(e) }));
    child.on("close", (code) => resolve({ ok: code === 0, text }));
  });
}

/**
 * Builds the addon. `only` keeps to sources whose path contains it and links nothing (for work on one file).
 * @returns {Promise<{compiled: number, total: number, seconds: number}>}
 */
export async function buildNative(root, { only, log = console.log, jobs = Math.min(2, availableParallelism()) } = {}) {
  const started = performance.now();
  if (process.platform === "win32")
    throw new Error(`tunebook's native kernels are not built on Windows itself. ${REMEDY.win32}`);
  const compiler = findCompiler();
  const files = sources(root);
  writeFamilies(root, files);
  const includes = [
    "native",
    "build",
    require("node-api-headers").include_dir,
    dirname(require.resolve("node-addon-api/napi.h")),
  ];
  const include = includes.flatMap((dir) => [dir.startsWith("/") ? "-isystem" : "-I", dir]);
  const work = [];
  for (const file of files) {
    for (const isa of file.isas.length > 0 ? file.isas : file.family ? [] : ["base"]) {
      const object = join(root, "build/obj", `${file.path.replace(/^native\//, "").replace(/[/]/g, ".")}.${isa}.o`);
      // GCC's own intrinsics headers trip this warning in every function that uses them.
      const quiet = isa !== "base" && compiler.isGcc ? ["-Wno-maybe-uninitialized", "-Wno-uninitialized"] : [];
      const flags = [...BASE, ...(ISA[isa] ?? []), ...quiet, ...include];
      const key = createHash("sha256")
        .update([compiler.version, ...flags].join("\0"))
        .digest("hex");
      work.push({ file: file.path, isa, object, flags, key, cwd: root });
    }
  }
  mkdirSync(join(root, "build/obj"), { recursive: true });
  const stale = work.filter((job) => (only ? job.file.includes(only) : true) && !isFresh(job));
  const failures = [];
  const queue = [...stale];
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (let job = queue.shift(); job; job = queue.shift()) {
        const args = [
          ...compiler.rest,
          ...job.flags,
          "-MMD",
          "-MF",
          `${job.object}.d`,
          "-c",
          job.file,
          "-o",
          job.object,
        ];
        const begun = performance.now();
        const result = await run(compiler.program, args, root);
        if (result.text.trim() !== "") log(result.text.trimEnd());
        if (!result.ok) {
          failures.push(`${job.file} (${job.isa})`);
          rmSync(job.object, { force: true });
        } else {
          writeFileSync(`${job.object}.flags`, job.key);
          log(`  c++ ${job.file} ${job.isa} ${((performance.now() - begun) / 1000).toFixed(1)} s`);
        }
      }
    }),
  );
  if (failures.length > 0) throw new Error(`The C++ compiler refused ${failures.join(", ")}: see its messages above.`);
  const seconds = () => (performance.now() - started) / 1000;
  if (only) return { compiled: stale.length, total: work.length, seconds: seconds() };
  await link(root, compiler, work, stale.length > 0, log);
  return { compiled: stale.length, total: work.length, seconds: seconds() };
}

async function link(root, compiler, work, changed, log) {
  const output = join(root, "build/tunebook.node");
  // An inline function of the standard library may stand in several objects, and the linker keeps the first: so the objects that run
  // on every processor come first, and a newer instruction never reaches an older machine through a shared template.
  const order = ["base", "portable", "avx2", "avx512", "avx512bf16"];
  const objects = order
    .flatMap((isa) => work.filter((job) => job.isa === isa).map((job) => job.object))
    .sort((a, b) => rank(a) - rank(b));
  function rank(object) {
    return order.indexOf(work.find((job) => job.object === object).isa);
  }
  const listed = objects.join("\n");
  const listFile = join(root, "build/obj/objects.txt");
  const same = existsSync(listFile) && readFileSync(listFile, "utf8") === listed;
  const newest = Math.max(...objects.map((o) => statSync(o).mtimeMs));
  if (!changed && same && existsSync(output) && statSync(output).mtimeMs >= newest) return;
  const partial = join(root, `build/tunebook.${process.pid}.tmp.node`);
  const how = process.platform === "darwin" ? ["-bundle", "-undefined", "dynamic_lookup"] : ["-shared", "-Wl,-z,now"];
  const result = await run(compiler.program, [...compiler.rest, "-pthread", "-o", partial, ...objects, ...how], root);
  if (result.text.trim() !== "") log(result.text.trimEnd());
  if (!result.ok) {
    rmSync(partial, { force: true });
    throw new Error("Linking build/tunebook.node failed: see the linker's messages above.");
  }
  const opened = spawnSync(process.execPath, ["-e", "require(process.argv[1])", partial], { encoding: "utf8" });
  if (opened.status !== 0) {
    rmSync(partial, { force: true });
    throw new Error(
      `The addon was linked but cannot be opened (an op family without its register_… function?):\n${opened.stderr}`,
    );
  }
  renameSync(partial, output); // a process that has the old one open keeps it
  writeFileSync(listFile, listed);
}
