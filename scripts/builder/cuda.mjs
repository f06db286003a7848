// Compiles native/cuda/*.cu into build/tunebook_cuda.so where nvcc is: incremental, two jobs at a time. The CPU backend never needs it.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { isFresh, run } from "./native.mjs";
import { writeChanged } from "./ops.mjs";

const BASE = [
  ..."-std=c++17 -O3 --expt-relaxed-constexpr --expt-extended-lambda -DNDEBUG".split(" "),
  ..."-Xcompiler -fPIC,-fvisibility=hidden -I native -I build".split(" "),
];
const OLDEST = 12;

/** nvcc by TUNEBOOK_NVCC, PATH, CUDA_HOME and /usr/local/cuda, or why there is none. */
function findNvcc() {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH, "/usr/local/cuda"].filter(Boolean);
  const candidates = process.env.TUNEBOOK_NVCC
    ? [process.env.TUNEBOOK_NVCC]
    : ["nvcc", ...homes.map((home) => join(home, "bin/nvcc"))];
  for (const program of candidates) {
    const out = spawnSync(program, ["--version"], { encoding: "utf8" });
    const version = out.status === 0 ? /release (\d+)\.(\d+)/.exec(out.stdout) : null;
    if (version === null) continue;
    if (Number(version[1]) < OLDEST) return `skipped, nvcc ${version[1]}.${version[2]} is older than ${OLDEST}.0`;
    return { program, version: out.stdout };
  }
  return "skipped, nvcc was not found (PATH, CUDA_HOME, /usr/local/cuda); the CPU backend works without it";
}

/** The GPUs to build for: "90a" is machine code for compute capability 9.0 with Hopper's own instructions. */
function architectures() {
  const asked = (process.env.TUNEBOOK_CUDA_ARCHS ?? "90a").split(/[\s;,]+/).filter((a) => a !== "");
  const wrong = asked.find((a) => !/^\d{2,3}[af]?$/.test(a));
  if (asked.length === 0 || wrong !== undefined)
    throw new Error(`TUNEBOOK_CUDA_ARCHS must be a list like "80;90a", but holds "${wrong ?? ""}".`);
  return asked;
}

/** build/cuda.families.gen.h: the register_<file name> functions of native/cuda, so that backend.cu can call them. */
function writeFamilies(root, files) {
  const families = files
    .map((file) => basename(file, ".cu"))
    .filter((name) =>
      readFileSync(join(root, `native/cuda/${name}.cu`), "utf8").includes(`void register_${name}(Backend&`),
    );
  const lines = [
    ...families.map((n) => `void register_${n}(Backend& b);`),
    "inline void register_all(Backend& b) {",
    ...families.map((n) => `  register_${n}(b);`),
    ...(families.length === 0 ? ["  (void)b;"] : []),
    "}",
  ];
  const text = `// Generated: the op families of native/cuda.\n#pragma once\n#include "backend.h"\n\nnamespace tunebook {\nnamespace cuda {\n\n${lines.join("\n")}\n\n}  // namespace cuda\n}  // namespace tunebook\n`;
  writeChanged(join(root, "build/cuda.families.gen.h"), text);
}

/**
 * Builds the CUDA backend. `only` keeps to sources whose path contains it and links nothing.
 * @returns {Promise<string | {compiled: number, total: number, seconds: number}>} why it was skipped, or what was done
 */
export async function buildCuda(root, { only, log = console.log, jobs = Math.min(2, availableParallelism()) } = {}) {
  const started = performance.now();
  const output = join(root, "build/tunebook_cuda.so");
  if (process.env.TUNEBOOK_CUDA === "0") return "skipped, TUNEBOOK_CUDA=0";
  if (process.platform !== "linux") return "skipped, it is built on Linux alone";
  const nvcc = findNvcc();
  if (typeof nvcc === "string") return nvcc;
  const archs = architectures();
  const codes = archs.flatMap((a) => ["-gencode", `arch=compute_${a},code=sm_${a}`]);
  const flags = [...BASE, ...codes, `-DTUNEBOOK_CUDA_ARCHS="${archs.join(";")}"`, ...(archs.length > 1 ? ["-t0"] : [])];
  const key = createHash("sha256")
    .update([nvcc.version, ...flags].join("\0"))
    .digest("hex");
  const files = readdirSync(join(root, "native/cuda"))
    .filter((f) => f.endsWith(".cu"))
    .sort();
  writeFamilies(root, files);
  mkdirSync(join(root, "build/obj"), { recursive: true });
  const work = files.map((f) => ({
    file: `native/cuda/${f}`,
    object: join(root, `build/obj/cuda.${basename(f, ".cu")}.o`),
    key,
    cwd: root,
  }));
  const stale = work.filter((job) => (only ? job.file.includes(only) : true) && !isFresh(job));
  // The largest sources first, so that none of them is left for the end.
  const queue = [...stale].sort((a, b) => statSync(join(root, b.file)).size - statSync(join(root, a.file)).size);
  const failures = [];
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (let job = queue.shift(); job; job = queue.shift()) {
        const begun = performance.now();
        const result = await run(
          nvcc.program,
          [...flags, "-MMD", "-MF", `${job.object}.d`, "-c", job.file, "-o", job.object],
          root,
        );
        if (result.text.trim() !== "") log(result.text.trimEnd());
        // The assembler says so where it serialised warpgroup products (C7510 to C7519), which costs most of their speed.
        const slow = /wgmma\S* instructions are serialized/.test(result.text);
        if (!result.ok || slow) {
          failures.push(slow ? `${job.file} (serialised products)` : job.file);
          rmSync(job.object, { force: true });
        } else {
          writeFileSync(`${job.object}.flags`, job.key);
          log(`  nvcc ${job.file} ${((performance.now() - begun) / 1000).toFixed(1)} s`);
        }
      }
    }),
  );
  if (failures.length > 0)
    throw new Error(
      `nvcc refused ${failures.join(", ")}: see its messages above. TUNEBOOK_CUDA=0 builds without CUDA.`,
    );
  const done = () => ({ compiled: stale.length, total: work.length, seconds: (performance.now() - started) / 1000 });
  if (!only) await link(root, nvcc.program, codes, work, output, stale.length > 0, log);
  return done();
}

async function link(root, nvcc, codes, work, output, changed, log) {
  const objects = work.map((job) => job.object);
  const listed = objects.join("\n");
  const listFile = join(root, "build/obj/cuda.objects.txt");
  const same = existsSync(listFile) && readFileSync(listFile, "utf8") === listed;
  if (!changed && same && existsSync(output) && objects.every((o) => statSync(o).mtimeMs <= statSync(output).mtimeMs))
    return;
  const partial = join(root, `build/tunebook_cuda.${process.pid}.tmp.so`);
  const how = [
    "-shared",
    "-cudart",
    "static",
    ...codes,
    "-Xlinker",
    "-z,defs",
    "-Xlinker",
    "--exclude-libs,ALL",
    "-ldl",
    "-lpthread",
    "-lrt",
  ];
  const result = await run(nvcc, [...how, "-o", partial, ...objects], root);
  if (result.text.trim() !== "") log(result.text.trimEnd());
  const refused = result.ok ? cannotOpen(partial) : "see the linker's messages above";
  if (refused !== undefined) {
    rmSync(partial, { force: true });
    throw new Error(`Linking build/tunebook_cuda.so failed: ${refused}`);
  }
  renameSync(partial, output); // a process that has the old one open keeps it
  writeFileSync(listFile, listed);
}

/** Opens a library in a process of its own; without a driver it must open too. Node opens it, then finds that it is no addon. */
function cannotOpen(file) {
  const code = `
    try { process.dlopen({ exports: {} }, process.argv[1], require("node:os").constants.dlopen.RTLD_NOW); }
    catch (error) { if (!/did not self-register/.test(error.message)) { console.error(error.message); process.exit(1); } }`;
  const opened = spawnSync(process.execPath, ["-e", code, file], { encoding: "utf8" });
  return opened.status === 0 ? undefined : `it cannot be opened:\n${opened.stderr}`;
}
