import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";

interface Cell {
  cell_type: string;
  id: string;
  source: string[];
  metadata: { tags?: string[] };
  execution_count?: number | null;
  outputs?: Record<string, unknown>[];
}

const CLI = fileURLToPath(new URL("../../kernel/cli.js", import.meta.url));

describe("the command", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tunebook-test-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const command = (...args: string[]): { status: number | null; text: string } => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
      encoding: "utf8",
      cwd: folder,
      timeout: 60_000,
    });
    return { status, text: stdout + stderr };
  };
  const notebook = (name: string, cells: [source: string, tags?: string[]][]): void => {
    const code = cells.map(([source, tags]) => ({
      cell_type: "code",
      source,
      metadata: tags ? { tags } : {},
      outputs: [],
      execution_count: null,
    }));
    const markdown = { cell_type: "markdown", source: "# A title", metadata: {} };
    const value = { cells: [markdown, ...code], metadata: {}, nbformat: 4, nbformat_minor: 4 };
    writeFileSync(join(folder, name), JSON.stringify(value));
  };
  const read = (name: string): Cell[] =>
    (JSON.parse(readFileSync(join(folder, name), "utf8")) as { cells: Cell[] }).cells;

  it("runs a notebook with parameters and writes its outputs", () => {
    notebook("good.ipynb", [
      ["let steps: number = 2;\nconst label: string = 'none';", ["parameters"]],
      ["for (let i = 0; i < steps; i++) console.log(label, i);"],
      ["display({ 'text/plain': '0%' }, { id: 'bar' });"],
      ["display({ 'text/plain': '100%' }, { id: 'bar', update: true });\nsteps * 10"],
    ]);
    const { status, text } = command("run", "good.ipynb", "-p", "steps=3", "-p", "label=run");
    assert.equal(status, 0, text);
    const cells = read("good.out.ipynb");
    assert.deepEqual(cells[2]!.metadata.tags, ["injected-parameters"]);
    assert.deepEqual(cells[2]!.source.slice(1), ["steps = 3;\n", 'const label: string = "run";']);
    assert.deepEqual(cells[3]!.outputs, [
      { output_type: "stream", name: "stdout", text: ["run 0\n", "run 1\n", "run 2\n"] },
    ]);
    assert.deepEqual(cells[4]!.outputs![0]!.data, { "text/plain": ["100%"] });
    assert.deepEqual(cells[5]!.outputs![0]!.data, { "text/plain": ["30"] });
    assert.equal(cells[5]!.execution_count, 5);
    assert.ok(cells.every(({ id }) => typeof id === "string" && id.length > 0));
  });

  it("stops at a failing cell, names it, and still writes the notebook", () => {
    notebook("bad.ipynb", [["1"], ["throw new Error('no luck')"], ["3"]]);
    const { status, text } = command("run", "bad.ipynb", "-o", "executed.ipynb");
    assert.equal(status, 1);
    assert.match(text, /Cell 2 failed/);
    assert.match(text, /Error: no luck/);
    const cells = read("executed.ipynb");
    assert.equal(cells[2]!.outputs![0]!.output_type, "error");
    assert.deepEqual(cells[3]!.outputs, []);
  });

  it("goes on with --allow-errors, and interrupts a cell that takes too long", () => {
    notebook("slow.ipynb", [["while (true) {}"], ["'after'"]]);
    const { status, text } = command("run", "slow.ipynb", "--timeout", "4", "--allow-errors");
    assert.equal(status, 0, text);
    assert.deepEqual(read("slow.out.ipynb")[2]!.outputs![0]!.data, { "text/plain": ["'after'"] });
    assert.match(command("run", "slow.ipynb", "--timeout", "4").text, /CellTimeout: The cell took longer than 4 s/);
  });

  it("says what is wrong with a notebook or a parameter", () => {
    writeFileSync(join(folder, "broken.ipynb"), "{");
    assert.match(command("run", "broken.ipynb").text, /broken\.ipynb cannot be read as a notebook/);
    assert.match(command("run", "good.ipynb", "-p", "9x=1").text, /expected NAME=VALUE/);
  });

  it("installs and removes the kernelspec", () => {
    assert.equal(command("install", "--prefix", folder).status, 0);
    const spec = join(folder, "share", "jupyter", "kernels", "tunebook");
    const { argv, language, interrupt_mode } = JSON.parse(readFileSync(join(spec, "kernel.json"), "utf8"));
    assert.equal(argv.length, 3);
    assert.ok(existsSync(argv[1]));
    assert.equal(argv[2], "{connection_file}");
    assert.equal(language, "typescript");
    assert.equal(interrupt_mode, "message");
    for (const logo of ["logo-svg.svg", "logo-32x32.png", "logo-64x64.png"])
      assert.ok(statSync(join(spec, logo)).size > 0);
    assert.match(command("install", "--prefix", folder, "--name", "../x").text, /letters, digits/);
    const other = ["--prefix", folder, "--name", "second"];
    assert.equal(command("install", ...other, "--display-name", "Another", "--typecheck", "warn").status, 0);
    const second = JSON.parse(readFileSync(join(spec, "..", "second", "kernel.json"), "utf8"));
    assert.equal(second.display_name, "Another");
    assert.deepEqual(second.env, { TUNEBOOK_TYPECHECK: "warn" });
    assert.equal(command("uninstall", ...other).status, 0);
    assert.equal(command("uninstall", "--prefix", folder).status, 0);
    assert.equal(existsSync(spec), false);
    assert.equal(command("uninstall", "--prefix", folder).status, 1);
  });

  it("leaves the kernelspecs of others alone", () => {
    const spec = join(folder, "share", "jupyter", "kernels", "theirs");
    mkdirSync(spec, { recursive: true });
    const text = JSON.stringify({ argv: ["tslab", "kernel", "{connection_file}"], display_name: "tslab" });
    writeFileSync(join(spec, "kernel.json"), text);
    const theirs = ["--prefix", folder, "--name", "theirs"];
    assert.match(command("install", ...theirs).text, /belongs to another kernel/);
    assert.equal(command("uninstall", ...theirs).status, 1);
    assert.equal(readFileSync(join(spec, "kernel.json"), "utf8"), text);
  });

  it("runs notebooks written for tslab's kernels", () => {
    for (const name of ["tslab-typescript.ipynb", "tslab-javascript.ipynb"]) {
      const source = fileURLToPath(new URL(`../../../test/jupyter/${name}`, import.meta.url));
      const { status, text } = command("run", source, "-o", name);
      assert.equal(status, 0, text);
    }
    const shown = read("tslab-typescript.ipynb").flatMap(({ outputs }) => outputs ?? []);
    const bundles = shown.map(({ data }) => data as Record<string, unknown> | undefined);
    assert.ok(bundles.some((data) => String(data?.["text/html"]).includes("Wrenmouth")));
    // The display that was updated stands there once, with its last content.
    assert.equal(bundles.filter((data) => /of 3/.test(String(data?.["text/plain"]))).length, 1);
  });

  it("takes parameters from a file, and from the command line before it", () => {
    notebook("file.ipynb", [["let a = 1;\nlet b = 'x';", ["parameters"]], ["[a, b].join(' ')"]]);
    writeFileSync(join(folder, "p.yaml"), "a: 2\nb: file\n");
    assert.equal(command("run", "file.ipynb", "-f", "p.yaml", "-r", "b", "7").status, 0);
    assert.deepEqual(read("file.out.ipynb").at(-1)!.outputs![0]!.data, { "text/plain": ["'2 7'"] });
    assert.match(command("run", "file.ipynb", "--token", "x").text, /go with --server URL/);
  });

  it("examines the machine", () => {
    const { text } = command("doctor");
    for (const name of [
      "Node",
      "CPU backend",
      "NVIDIA driver",
      "CUDA backend",
      "nvcc",
      "cuBLASLt",
      "cuDNN",
      "Kernelspec",
      "Jupyter",
    ])
      assert.match(text, new RegExp(`^${name} `, "m"));
  });
});
