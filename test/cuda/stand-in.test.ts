// Without a GPU the CPU's ops stand in for one (TUNEBOOK_FAKE_CUDA=1), so that whatever depends on a tensor's device runs everywhere: the tests
// of this folder, and those of tensors and models again with the GPU as their default device.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const tests = fileURLToPath(new URL("..", import.meta.url));

function run(files: readonly string[], env: Record<string, string>): void {
  const { NODE_TEST_CONTEXT: _, ...rest } = process.env; // a test runner inside a test runner would report to the outer one
  const child = spawnSync(process.execPath, ["--test", ...files.map((file) => join(tests, file))], {
    env: { ...rest, TUNEBOOK_FAKE_CUDA: "1", ...env },
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const failed = child.stdout.split(/\n(?=not ok|# Subtest)/).filter((part) => part.startsWith("not ok"));
  assert.equal(child.status, 0, `${failed.join("\n").slice(0, 8000)}\n${child.stderr.slice(-2000)}`);
  assert.doesNotMatch(child.stdout, /# SKIP no CUDA device/);
}

test("the tests of the GPU", () => {
  // Of the ops a few, for the runner's sake: they are the CPU's.
  const files = [
    "tensors",
    "model",
    "architectures",
    "preference",
    "host",
    "resume",
    "ops",
    "large",
    "linear-update",
  ].map((name) => `cuda/${name}.test.js`);
  run(files, { TUNEBOOK_CASES: "rope,memory" });
  run(["cuda/limits.test.js"], { TUNEBOOK_CUDA_MEMORY_LIMIT: String(64 * 2 ** 20), TUNEBOOK_FAKE_CUDA_DELAY: "200" });
});

test("recorded decoding where no graph can be captured", () => {
  run(["evaluation/decode.test.js"], { TUNEBOOK_DEVICE: "cuda", TUNEBOOK_FAKE_CUDA_CAPTURE: "0" });
});

test("the tests of tensors and models, with the GPU as the default device", () => {
  const all = (folder: string): string[] =>
    readdirSync(join(tests, folder)).flatMap((f) => (f.endsWith(".test.js") ? [`${folder}/${f}`] : []));
  const files = ["autograd", "evaluation", "facade", "lora", "models", "peers", "training"].flatMap(all);
  run(files, { TUNEBOOK_DEVICE: "cuda" });
});
