// llama.cpp through node-llama-cpp: installed into a folder of the bench's own, never among the project's packages.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { npm } from "../setup.mjs";
import { root } from "./duel.mjs";

const VERSION = "3.22.1";
const folder = join(root, ".cache", "llama-cpp");

/**
 * Installs node-llama-cpp with its prebuilt binaries (platform packages; its install script is not run).
 * @returns the folder that holds its node_modules
 */
export function ensureLlamaCpp() {
  const installed = join(folder, "node_modules", "node-llama-cpp", "package.json");
  if (existsSync(installed) && JSON.parse(readFileSync(installed, "utf8")).version === VERSION) return folder;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const dependencies = { "node-llama-cpp": VERSION };
  // The binaries for GPUs are optional dependencies of some hundred megabytes: left out by overrides that point at something empty.
  const empty = join(folder, "empty");
  mkdirSync(empty);
  writeFileSync(join(empty, "package.json"), JSON.stringify({ name: "empty", version: "1.0.0" }));
  const overrides = {};
  for (const name of [
    "linux-x64-cuda",
    "linux-x64-cuda-ext",
    "linux-x64-vulkan",
    "win-x64-cuda",
    "win-x64-cuda-ext",
    "win-x64-vulkan",
  ])
    overrides[`@node-llama-cpp/${name}`] = "file:./empty";
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, dependencies, overrides }));
  npm(
    ["install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"],
    "The benchmark of decoding needs node-llama-cpp from the npm registry.",
  );
  return folder;
}
