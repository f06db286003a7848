/**
 * Writes the small data sets of the notebooks to notebooks/data. Run after the build:
 *   node dist/notebooks/embedded/data.js
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./prepare.js";
import { codeRow } from "./world/functions.js";
import { dialogue, distinct, instruction, radio } from "./world/tasks.js";
import { visit } from "./world/visits.js";

/** Every bundled data set by file name. */
export function dataSets(): Record<string, object[]> {
  const functions = distinct(640, 107, codeRow, (row) => row.prompt);
  return {
    "radio-train.jsonl": distinct(
      800,
      101,
      (random) => radio(random),
      (row) => row.text,
    ),
    // A third of the test messages is worded like no training row.
    "radio-test.jsonl": distinct(
      240,
      105,
      (random) => radio(random, 1 / 3),
      (row) => row.text,
    ),
    "dialogues.jsonl": distinct(600, 102, dialogue, (row) => row.dialogue),
    "visits-train.jsonl": distinct(
      720,
      103,
      (random) => visit(random),
      (row) => row.content,
    ),
    // A third of these is of scenes that no row to train on has.
    "visits-test.jsonl": distinct(
      240,
      106,
      (random) => visit(random, 1 / 3),
      (row) => row.content,
    ),
    // One list in two parts, so that no function to train on is one to measure on.
    "functions-train.jsonl": functions.slice(0, 560),
    "functions-test.jsonl": functions.slice(560),
    "instructions.jsonl": distinct(1000, 104, instruction, (row) => row.instruction + row.input),
  };
}

/** One line a row. */
export function jsonl(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const folder = join(root, "notebooks", "data");
  mkdirSync(folder, { recursive: true });
  for (const [name, rows] of Object.entries(dataSets())) {
    const text = jsonl(rows);
    writeFileSync(join(folder, name), text);
    console.log(`${name}: ${rows.length} rows, ${Math.round(text.length / 1000)} kB`);
  }
}
