// npm run demo: sets the clone up, runs notebooks/00-quickstart.ipynb through the kernel as a front end would, and prints
// the table of results and where the executed notebook is.
//   node scripts/demo.mjs [-p NAME=VALUE]…   passes parameters on to `tunebook run`
import { existsSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { run, setup, step } from "./setup.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const notebook = join("notebooks", "00-quickstart.ipynb");
const output = join("notebooks", "00-quickstart.out.ipynb");

function main() {
  setup();
  const weights = join("notebooks", "embedded", "model", "model.safetensors");
  if (!existsSync(join(root, weights)))
    throw new Error(`${weights} is missing: it is part of the repository, so check the clone out again.`);
  step(`running ${notebook} through the kernel (about a minute)`);
  const started = performance.now();
  run(
    process.execPath,
    [join("dist", "kernel", "cli.js"), "run", notebook, "-o", output, ...process.argv.slice(2)],
    `The message above is the failing cell's; ${output} holds what ran before it.`,
  );
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`\n${results(join(root, output))}\n`);
  step(
    `the notebook ran in ${seconds} s; with its tables and charts it is in ${relative(process.cwd(), join(root, output))}`,
  );
}

/** The text of the table that the cell tagged "results" shows. */
function results(path) {
  const { cells } = JSON.parse(readFileSync(path, "utf8"));
  const cell = cells.find(({ metadata }) => metadata.tags?.includes("results"));
  const table = cell?.outputs.find(({ output_type: type }) => type === "execute_result");
  if (table === undefined) throw new Error(`${path} has no result in a cell tagged "results".`);
  const text = table.data["text/plain"];
  return Array.isArray(text) ? text.join("") : text;
}

try {
  main();
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exit(1);
}
