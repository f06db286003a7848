// Builds everything: generated files, the native addon (build/tunebook.node) and dist/.
//   node scripts/build.mjs [--native-only | --ts-only | --generate-only] [--file <part of a C++ file's path>]
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildNative } from "./builder/native.mjs";
import { generateOps } from "./builder/ops.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const args = process.argv.slice(2);
const has = (flag) => args.includes(flag);

function buildTypeScript() {
  const tsc = join(root, "node_modules/typescript-7/bin/tsc");
  if (!existsSync(tsc)) {
    if (existsSync(join(root, "dist/src/index.js"))) return; // an installed package brings dist/ along
    throw new Error("The TypeScript compiler is missing: run npm ci first.");
  }
  const started = performance.now();
  const result = spawnSync(process.execPath, [tsc, "-p", "tsconfig.json"], { cwd: root, stdio: "inherit" });
  if (result.status !== 0) throw new Error("TypeScript found errors: see above.");
  console.log(`dist/ in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

try {
  generateOps(root);
  const at = args.indexOf("--file");
  const only = at >= 0 ? args[at + 1] : undefined;
  if (!has("--ts-only") && !has("--generate-only")) {
    const { compiled, total, seconds } = await buildNative(root, { only });
    console.log(`native: ${compiled} of ${total} objects compiled in ${seconds.toFixed(1)} s`);
  }
  if (!has("--native-only") && !has("--generate-only") && !only) buildTypeScript();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
