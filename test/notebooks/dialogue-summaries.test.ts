import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "../../notebooks/embedded/prepare.js";

interface Cell {
  readonly metadata: { readonly tags?: readonly string[] };
  readonly outputs?: readonly { readonly data?: Readonly<Record<string, string | readonly string[]>> }[];
}

const { cells } = JSON.parse(readFileSync(join(root, "notebooks", "01-qlora-dialogue-summaries.ipynb"), "utf8")) as {
  cells: Cell[];
};

test("after training, the summaries have far more in common with those written for the rows", () => {
  const results = cells.find((cell) => cell.metadata.tags?.includes("results"));
  const shown = results?.outputs?.find((output) => output.data)?.data?.["text/plain"] ?? "";
  const lines = (typeof shown === "string" ? shown : shown.join("")).split("\n");
  const row = (metric: string): number[] => {
    const line = lines.find((each) => each.startsWith(metric));
    assert.ok(line, `${metric} in ${lines.join("\n")}`);
    return line.slice(metric.length).trim().split(/\s+/).map(Number);
  };
  for (const metric of ["rouge1", "rougeL", "rougeLsum"]) {
    const [before, after, change] = row(metric);
    assert.ok(after! > before! + 0.4 && Math.abs(after! - before! - change!) < 2e-3, `${metric}: ${before} → ${after}`);
  }
  assert.ok(row("perplexity")[1]! < row("perplexity")[0]! / 10);
});

test("ROUGE stands in a bar chart, shown as a picture too", () => {
  const bundles = cells.flatMap((cell) => cell.outputs ?? []).map((output) => output.data ?? {});
  const plain = (text: string | readonly string[] | undefined): string => [text ?? ""].flat().join("");
  assert.ok(bundles.some((b) => "image/png" in b && plain(b["text/plain"]).startsWith("ROUGE (F1)")));
});
