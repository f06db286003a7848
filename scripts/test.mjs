// npm test: sets the clone up, checks types and style, then runs the tests with Node's own runner.
//   npm test -- PART…   runs only the test files whose path contains one of the parts, without the checks before.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { npm, setup, step } from "./setup.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const parts = process.argv.slice(2);

/** The compiled file of every test source: what is left in dist of a source that is gone never runs. */
function testFiles() {
  return readdirSync(join(root, "test"), { recursive: true })
    .map(String)
    .filter((path) => path.endsWith(".test.ts") && !path.split(sep).includes("fixtures"))
    .map((path) => join("dist", "test", path.replace(/\.ts$/, ".js")))
    .filter((path) => parts.length === 0 || parts.some((part) => path.includes(part)))
    .sort();
}

function main() {
  setup();
  if (parts.length === 0) {
    step("checking types");
    npm(["run", "--silent", "types"], "The lines above name the files.");
    step("checking style");
    npm(["run", "--silent", "lint"], "`npm run format` mends most of it.");
  }
  const files = testFiles();
  const missing = files.find((path) => !existsSync(join(root, path)));
  if (missing !== undefined) throw new Error(`${missing} was not built although its source exists.`);
  if (files.length === 0) throw new Error(`no test file's path contains ${parts.join(" or ")}.`);
  step(`running ${files.length} test files`);
  const flags = ["--test", "--test-concurrency=2", "--test-timeout=600000", "--test-reporter=spec"];
  const { status } = spawnSync(process.execPath, [...flags, ...files], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  return status ?? 1;
}

try {
  process.exit(main());
} catch (error) {
  console.error(`test: ${error.message}`);
  process.exit(1);
}
