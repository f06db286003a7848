import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Notebook, NotebookCell } from "../../kernel/notebook.js";
import {
  injectParameters,
  joinParameters,
  type Parameter,
  parseParameter,
  readParameters,
} from "../../kernel/parameters.js";

const book = (...cells: [source: string, ...tags: string[]][]): Notebook => ({
  cells: cells.map(
    ([source, ...tags], i): NotebookCell => ({ cell_type: "code", id: `cell-${i}`, metadata: { tags }, source }),
  ),
  metadata: {},
  nbformat: 4,
  nbformat_minor: 5,
});
const injected = (notebook: Notebook, values: Record<string, unknown>): string[] => {
  const parameters: Parameter[] = Object.entries(values).map(([name, value]) => ({ name, value }));
  injectParameters(notebook, parameters);
  const found = notebook.cells.filter(({ metadata }) => (metadata.tags as string[]).includes("injected-parameters"));
  assert.equal(found.length, 1);
  return (found[0]!.source as string).split("\n").slice(1);
};

describe("parameters of a notebook", () => {
  it("come behind the tagged cell, in the place of an earlier run's, at the top where no cell is tagged", () => {
    const notebook = book(["// before"], ["let a = 1;", "parameters"], ["a"]);
    injected(notebook, { a: 2 });
    injected(notebook, { a: 3 });
    assert.deepEqual(
      notebook.cells.map(({ source }) => source),
      ["// before", "let a = 1;", "// Parameters\na = 3;", "a"],
    );
    const untagged = book(["1"]);
    assert.deepEqual(injected(untagged, { a: 2 }), ["let a = 2;"]);
    assert.equal(untagged.cells[1]!.source, "1");
  });

  it("keep the types of the cell that declares them, and name those that it does not", () => {
    const code = 'let steps: number = 1;\nconst mode: "a" | "b" = "a";\nconst free = 1;\nexport let out = "";';
    const values = { steps: 2, mode: "b", free: 3, out: "x", other: null };
    assert.deepEqual(injected(book([code, "parameters"]), values), [
      "steps = 2;",
      'const mode: "a" | "b" = "b";',
      "let free = 3;",
      'out = "x";',
      "let other = null;",
    ]);
    const twice = [1, 2].map((value) => ({ name: "other", value }));
    assert.deepEqual(injectParameters(book([code, "parameters"]), [...twice, { name: "steps", value: 1 }]), ["other"]);
  });

  it("are written as TypeScript, whatever they hold", () => {
    const value = { list: [1, "two\n\u2028", null], ["__proto__"]: { deep: true }, empty: {}, odd: [NaN, -Infinity] };
    const [line] = injected(book(["1"]), { value });
    const read = new Function(`${line} return value;`)() as typeof value;
    assert.deepEqual(Object.entries(read), Object.entries(value));
  });

  it("are read from the command line with their types", () => {
    const values = { "a=1": 1, "a=1e-3": 1e-3, "a=true": true, "a=True": true, "a=None": null, "a=[1, 2]": [1, 2] };
    for (const [text, value] of Object.entries(values)) assert.deepEqual(parseParameter(text).value, value, text);
    for (const text of ["a", "a b", 'b="', "x=y=z", ""]) assert.equal(parseParameter(`a=${text}`).value, text);
    assert.equal(parseParameter("a=1", true).value, "1");
    for (const text of ["1a=1", "=1", "a", "a b=1"]) assert.throws(() => parseParameter(text), /NAME=VALUE/, text);
  });

  it("are taken in papermill's form too", () => {
    assert.deepEqual(joinParameters(["run", "-p", "a", "1", "x.ipynb", "-r", "b", "-p", "-p", "c=2"]), [
      "run",
      "-p",
      "a=1",
      "x.ipynb",
      "-r",
      "b=-p",
      "-p",
      "c=2",
    ]);
    assert.deepEqual(joinParameters(["-p", "a"]), ["-p", "a"]);
    assert.deepEqual(joinParameters(["--", "-p", "a", "1"]), ["--", "-p", "a", "1"]);
  });

  describe("in files", () => {
    let folder: string;
    before(() => {
      folder = mkdtempSync(join(tmpdir(), "tunebook-test-"));
    });
    after(() => rmSync(folder, { recursive: true, force: true }));
    const read = (name: string, text: string): Promise<Parameter[]> => {
      writeFileSync(join(folder, name), text);
      return readParameters(join(folder, name));
    };

    it("are YAML or JSON", async () => {
      const expected = [
        { name: "steps", value: 100 },
        { name: "names", value: ["a", "2"] },
      ];
      assert.deepEqual(await read("p.yaml", 'steps: 100 # many\nnames:\n  - a\n  - "2"\n'), expected);
      assert.deepEqual(await read("p.json", '{ "steps": 100, "names": ["a", "2"] }'), expected);
    });

    it("are refused where they are no names with values", async () => {
      await assert.rejects(read("list.yaml", "- 1"), /list\.yaml: expected names with their values/);
      await assert.rejects(read("bad.yaml", "a: [1"), /bad\.yaml: the parameters cannot be read/);
      await assert.rejects(read("bad.json", "a: 1"), /bad\.json: the parameters cannot be read/);
      await assert.rejects(read("name.yaml", "a b: 1"), /name\.yaml: "a b" is no identifier/);
      await assert.rejects(readParameters(join(folder, "gone.yaml")), /gone\.yaml/);
    });
  });
});
