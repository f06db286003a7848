// npm run pack:gpu — packs what a GPU machine without Node, npm and network needs to run tests, benches and notebooks into .gpu/: one archive
// and run.sh, which unpacks it there and runs a command in it:
//   sh .gpu/run.sh 'node --test dist/test/cuda/*.test.js'
//   --no-kernel     leaves out what only notebooks need
//   --node FILE     packs another Node than the one that runs this
//   --add PATH      packs a file or a folder (a model, a data set) as extra/NAME; may be given several times
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const MOST = 64 * 2 ** 20;

/** Packages that only the kernel and the notebooks' display load. */
const KERNEL_ONLY = new Set(["zeromq", "typescript", "@types/node", "plotly.js-dist-min", "commander", "jsdom"]);
/** Packages that build but do not run. */
const NEVER = new Set(["node-addon-api"]);

const RUN = `#!/bin/sh
# Unpacks tunebook once and runs a command in it: sh run.sh 'node --test dist/test/cuda/*.test.js'
set -e
here=$(cd "$(dirname "$0")" && pwd)
to=\${TUNEBOOK_GPU_DIR:-/tmp/tunebook-gpu}
sum=$(cksum < "$here/tunebook.tar.xz")
if [ "$(cat "$to/.packed" 2>/dev/null)" != "$sum" ]; then
  [ ! -e "$to/.packed" ] || rm -rf "$to"
  mkdir -p "$to"
  if command -v xz >/dev/null 2>&1; then
    tar -xJf "$here/tunebook.tar.xz" -C "$to"
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/tunebook.tar.xz" "$to"
  fi
  echo "$sum" > "$to/.packed"
fi
PATH="$to/bin:$PATH"
export PATH
cd "$to"
if [ $# -eq 1 ]; then exec sh -c "$1"; fi
exec "$@"
`;

/** The folder of a package as `from` would find it. */
function find(name, from) {
  for (let folder = from; ; folder = dirname(folder)) {
    const here = join(folder, "node_modules", name);
    if (existsSync(join(here, "package.json"))) return here;
    if (folder === root || folder === dirname(folder)) return undefined;
  }
}

/** The folders of the packages that the given ones stand on. */
function closure(names) {
  const found = new Set();
  const visit = (name, from, optional) => {
    if (NEVER.has(name)) return;
    const folder = find(name, from);
    if (folder === undefined) {
      if (optional) return; // another platform's binary
      throw new Error(`node_modules holds no ${name}: run npm ci first.`);
    }
    if (found.has(folder)) return;
    found.add(folder);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(
      readFileSync(join(folder, "package.json"), "utf8"),
    );
    for (const one of Object.keys(dependencies)) visit(one, folder, one in optionalDependencies);
    for (const one of Object.keys(optionalDependencies)) visit(one, folder, true);
  };
  for (const name of names) visit(name, root, false);
  return [...found];
}

/** Whether a file of a package is needed to run it. */
function runs(path) {
  const inside = relative(join(root, "node_modules"), path).split(sep).join("/");
  if (/\.(map|md|markdown|flow|cc|h|hpp|gyp|tsbuildinfo)$/i.test(inside)) return false;
  if (/^zeromq\/build\/(?!linux(\/x64(\/|$)|$)|manifest\.json)/.test(inside)) return false;
  if (/^typescript\/lib\/(?!typescript\.js$|lib\.|package\.json)[^/]+$/.test(inside)) return false;
  if (/\.(d\.[cm]?ts|ts|mts|cts|tsx)$/.test(inside)) return /^(typescript\/lib\/lib\.|@types\/)/.test(inside);
  return !/(^|\/)(docs|examples?|\.github|umd)(\/|$)/.test(inside);
}

function bytesOf(path) {
  const stat = statSync(path);
  return stat.isDirectory() ? readdirSync(path).reduce((sum, one) => sum + bytesOf(join(path, one)), 0) : stat.size;
}

function main() {
  const { values } = parseArgs({
    options: { "no-kernel": { type: "boolean" }, node: { type: "string" }, add: { type: "string", multiple: true } },
  });
  const stage = mkdtempSync(join(tmpdir(), "tunebook-gpu-"));
  try {
    const put = (from, to, filter) =>
      cpSync(from, join(stage, to), { recursive: true, dereference: true, ...(filter && { filter }) });
    for (const file of ["build/tunebook.node", "build/tunebook_cuda.so", "dist"]) {
      if (!existsSync(join(root, file)))
        throw new Error(`${file} is not there: run "npm run build" with nvcc in the path first.`);
    }
    mkdirSync(join(stage, "bin"));
    mkdirSync(join(stage, "build"));
    copyFileSync(realpathSync(values.node ?? process.execPath), join(stage, "bin/node"));
    chmodSync(join(stage, "bin/node"), 0o755);
    for (const file of ["tunebook.node", "tunebook_cuda.so"])
      copyFileSync(join(root, "build", file), join(stage, "build", file));
    const code = (path) => !/\.(map|d\.ts|tsbuildinfo)$/.test(path);
    put(
      join(root, "dist"),
      "dist",
      values["no-kernel"]
        ? (path) => code(path) && !/dist.(kernel|test.kernel|test.notebooks)(\W|$)/.test(path)
        : (path) => !/\.(map|tsbuildinfo)$/.test(path),
    );
    // docs: tests compare what it says with what is counted.
    for (const part of ["package.json", "scripts", "notebooks", "docs", "test/fixtures"]) put(join(root, part), part);
    const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    const names = Object.keys(dependencies).filter((name) => !values["no-kernel"] || !KERNEL_ONLY.has(name));
    for (const folder of closure(names))
      put(folder, relative(root, folder), (path) =>
        statSync(path).isDirectory() && basename(path) === "node_modules" ? path === folder : runs(path),
      );
    for (const path of values.add ?? []) put(path, join("extra", basename(path)));
    for (const part of readdirSync(stage).sort())
      console.log(`${part.padEnd(14)} ${(bytesOf(join(stage, part)) / 2 ** 20).toFixed(1)} MiB`);
    const out = join(root, ".gpu");
    mkdirSync(out, { recursive: true });
    const archive = join(out, "tunebook.tar.xz");
    const packed = spawnSync("tar", ["-cJf", archive, "--owner=0", "--group=0", "-C", stage, "."], {
      stdio: "inherit",
      env: {
        ...process.env,
        XZ_OPT: process.env.XZ_OPT ?? (process.arch === "x64" ? "-T2 --x86 --lzma2=preset=7" : "-T2 -7"),
      },
    });
    if (packed.status !== 0)
      throw new Error("tar could not pack: it needs xz (Debian, Ubuntu: sudo apt install xz-utils).");
    writeFileSync(join(out, "run.sh"), RUN, { mode: 0o755 });
    const size = statSync(archive).size;
    console.log(
      `.gpu/tunebook.tar.xz ${(size / 2 ** 20).toFixed(1)} MiB; there: sh .gpu/run.sh 'node --test dist/test/cuda/*.test.js'`,
    );
    if (size > MOST)
      throw new Error(`The archive is larger than ${MOST / 2 ** 20} MiB: leave parts out (--no-kernel).`);
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

try {
  main();
} catch (error) {
  console.error(`pack:gpu: ${error.message}`);
  process.exitCode = 1;
}
