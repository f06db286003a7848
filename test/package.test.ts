/** What an installed package holds: everything that is run, nothing that the build leaves behind. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const MOST_BYTES = 25_000_000; // unpacked, without the part for GPUs

const NEEDED = [
  "package.json",
  "README.md",
  "LICENSE",
  "build/tunebook.node",
  "dist/src/index.js",
  "dist/src/index.d.ts",
  "dist/src/plot/render/worker.js",
  "dist/kernel/cli.js",
  "dist/kernel/main.js",
  "kernel/bin/tunebook",
  "native/ops.def",
  "notebooks/00-quickstart.ipynb",
  "notebooks/02-helpers.ts",
  "notebooks/04-logo.ts",
  "notebooks/embedded/model/model.safetensors",
  "notebooks/embedded/vision/model/model.safetensors",
  "notebooks/embedded/chatglm/model/model.safetensors",
];

// The repository is there in full only where npm is: a GPU machine has a part of it.
describe("the package", { skip: existsSync(`${root}/package-lock.json`) ? false : "no repository here" }, () => {
  const printed = execFileSync("npm", ["pack", "--dry-run", "--json", "--offline", "--loglevel", "error"], {
    cwd: root,
    encoding: "utf8",
  });
  const { files } = (JSON.parse(printed) as { files: { path: string; size: number }[] }[])[0]!;
  const paths = files.map(({ path }) => path);

  it("holds what is run", () => {
    assert.deepEqual(
      NEEDED.filter((path) => !paths.includes(path)),
      [],
    );
  });

  it("holds nothing of the build, the tests and the tools", () => {
    const known = /^(dist\/(src|kernel)\/|kernel\/bin\/|native\/|notebooks\/|build\/[^/]+\.(node|so)$|[^/]+$)/;
    assert.deepEqual(
      paths.filter((path) => !known.test(path) || /\.(map|o|d|tsbuildinfo)$/.test(path) || /\.out\.ipynb$/.test(path)),
      [],
    );
  });

  it(`has at most ${MOST_BYTES} bytes without the part for GPUs`, () => {
    const own = files.filter(({ path }) => path !== "build/tunebook_cuda.so");
    const bytes = own.reduce((sum, { size }) => sum + size, 0);
    const largest = own.sort((a, b) => b.size - a.size).slice(0, 8);
    assert.ok(
      bytes <= MOST_BYTES,
      `${bytes} bytes; the largest: ${largest.map((f) => `${f.path} ${f.size}`).join(", ")}`,
    );
  });
});
