// node scripts/fuzz-native.mjs [COUNT [SEED]]: the native reader of files, built with AddressSanitizer and UndefinedBehaviorSanitizer, on random blocks.
// `npm run fuzz:files` runs it too. Needs g++ and a build (generated headers).
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const SOURCES = [
  "native/file_loader.cc",
  "native/block_planes.cc",
  "native/super_blocks.cc",
  "test/native/fuzz_loader.cc",
];
const FLAGS = ["-std=c++17", "-O1", "-g", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/** @returns {boolean} whether nothing was found */
export function fuzzNative(count, seed) {
  const folder = mkdtempSync(join(tmpdir(), "tunebook-fuzz-native-"));
  const program = join(folder, "fuzz");
  const options = { cwd: root, stdio: "inherit" };
  try {
    const compiler = process.env.CXX ?? "g++";
    const made = spawnSync(compiler, [...FLAGS, "-Inative", "-Ibuild", ...SOURCES, "-o", program], options);
    if (made.status !== 0)
      throw new Error(`${compiler} could not build the driver: ${made.error?.message ?? "see above"}`);
    const env = { ...process.env, TUNEBOOK_LOAD_THREADS: "3" };
    return spawnSync(program, [String(count), String(seed)], { ...options, env }).status === 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!fuzzNative(Number(process.argv[2] ?? 100_000), Number(process.argv[3] ?? 1))) process.exitCode = 1;
}
