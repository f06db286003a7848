import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../notebooks/embedded/prepare.js";

interface Output {
  readonly output_type: string;
  readonly data?: Readonly<Record<string, unknown>>;
}
interface Cell {
  readonly id: string;
  readonly cell_type: string;
  readonly source: readonly string[];
  readonly metadata: { readonly tags?: readonly string[] };
  readonly outputs?: readonly Output[];
  readonly execution_count?: number | null;
}

const folder = join(root, "notebooks");
const names = readdirSync(folder).filter((name) => name.endsWith(".ipynb") && !name.endsWith(".out.ipynb"));
const text = (name: string): string => readFileSync(join(folder, name), "utf8");
const cells = (name: string): Cell[] => (JSON.parse(text(name)) as { cells: Cell[] }).cells;

for (const name of names) {
  test(`${name} is a notebook of this kernel in nbformat 4.5, executed from top to bottom without an error`, () => {
    const book = JSON.parse(text(name)) as {
      nbformat: number;
      nbformat_minor: number;
      metadata: { kernelspec: unknown };
    };
    assert.deepEqual([book.nbformat, book.nbformat_minor], [4, 5]);
    const { name: kernel, language } = book.metadata.kernelspec as { name: string; language: string };
    assert.deepEqual([kernel, language], ["tunebook", "typescript"]);
    const all = cells(name);
    assert.equal(new Set(all.map((cell) => cell.id)).size, all.length, "ids are unique");
    for (const cell of all) {
      assert.match(cell.id, /^[\w-]{1,64}$/);
      assert.ok(["code", "markdown"].includes(cell.cell_type) && Array.isArray(cell.source));
    }
    const code = all.filter((cell) => cell.cell_type === "code");
    assert.deepEqual(code[0]?.metadata.tags, ["parameters"], "the first cell of code holds the parameters");
    assert.deepEqual(
      code.map((cell) => cell.execution_count),
      code.map((_, i) => i + 1),
    );
    for (const output of code.flatMap((cell) => cell.outputs ?? [])) {
      assert.notEqual(output.output_type, "error");
      if (output.data !== undefined) assert.ok("text/plain" in output.data, "every display has a text");
    }
  });

  test(`${name} names no folder of the machine it ran on, and is small`, () => {
    const book = text(name);
    assert.ok(book.length <= 1_500_000, `${book.length} bytes`);
    assert.ok(!book.includes(root.replace(/\/$/, "")), "the repository's own path");
    assert.doesNotMatch(book, /["'\s(:](?:file:\/\/)?\/(?:home|root|Users|tmp|var|mnt|opt|private)\/|[A-Z]:\\\\/);
  });
}

test("the quickstart's metrics improve clearly, and the saved adapter gives the same ones", () => {
  const results = cells("00-quickstart.ipynb").find((cell) => cell.metadata.tags?.includes("results"));
  const shown = results?.outputs?.find((output) => output.output_type === "execute_result")?.data?.["text/plain"];
  const lines = (Array.isArray(shown) ? shown.join("") : String(shown)).split("\n");
  const row = (metric: string): number[] => {
    const line = lines.find((each) => each.startsWith(metric));
    assert.ok(line, `${metric} in ${lines.join("\n")}`);
    return line
      .slice(metric.length)
      .trim()
      .split(/\s+/)
      .map((part) => Number(part.replaceAll(",", "")));
  };
  const [before, after, again] = row("accuracy");
  assert.ok(before! < 0.75 && after! > 0.85, `${before} → ${after}`);
  assert.equal(again, after);
  assert.ok(row("f1")[1]! > 0.85);
  assert.ok(row("perplexity")[1]! < row("perplexity")[0]! / 10);
});

test("the quickstart shows its charts as pictures too, and its tables as HTML", () => {
  const bundles = cells("00-quickstart.ipynb")
    .flatMap((cell) => cell.outputs ?? [])
    .map((output) => output.data ?? {});
  assert.ok(bundles.filter((b) => "image/png" in b && "application/vnd.plotly.v1+json" in b).length >= 5);
  assert.ok(bundles.filter((b) => "text/html" in b).length >= 8);
});
