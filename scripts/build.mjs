// Builds everything: generated files, the native addon (build/tunebook.node), the CUDA backend (build/tunebook_cuda.so) where nvcc is, and dist/.
//   node scripts/build.mjs [--native-only | --cuda-only | --ts-only | --generate-only] [--file <part of a C++ or CUDA file's path>]
// TUNEBOOK_CUDA=0 leaves CUDA out; TUNEBOOK_CUDA_ARCHS lists the GPUs to build for ("90a" by default; "80;89;90a;100;120").
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildCuda } from "./builder/cuda.mjs";
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
  const nativeToo = !has("--ts-only") && !has("--generate-only");
  const report = (what, { compiled, total, seconds }) =>
    console.log(`${what}: ${compiled} of ${total} objects compiled in ${seconds.toFixed(1)} s`);
  if (nativeToo && !has("--cuda-only")) report("native", await buildNative(root, { only }));
  if (nativeToo && !has("--native-only")) {
    const built = await buildCuda(root, { only });
    if (typeof built === "string") console.log(`cuda: ${built}`);
    else report("cuda", built);
  }
  if (!has("--native-only") && !has("--cuda-only") && !has("--generate-only") && !only) buildTypeScript();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
