// The op tests again under every instruction set this processor has, and one bitwise result for every number of threads.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { stats } from "../../src/tensor/native.js";

const here = dirname(fileURLToPath(import.meta.url));
const order: readonly string[] = ["portable", "avx2", "avx512", "avx512bf16"];
const available = order.slice(0, order.indexOf(stats("cpu").isa) + 1);

function run(file: string, env: Record<string, string>): string {
  const { NODE_TEST_CONTEXT: _, ...rest } = process.env; // a test runner inside a test runner would report to the outer one
  const child = spawnSync(process.execPath, [join(here, file)], {
    env: { ...rest, ...env },
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  assert.equal(
    child.status,
    0,
    `${file} with ${JSON.stringify(env)}:\n${child.stdout.slice(-6000)}${child.stderr.slice(-2000)}`,
  );
  return child.stdout;
}

const files = readdirSync(here).filter((f) => /^ops-.*\.test\.js$/.test(f) && f !== "ops-isa.test.js");

for (const isa of available) {
  if (isa === stats().isa) continue; // the runner itself runs that one
  test(`the op tests pass with ${isa}`, () => {
    assert.ok(files.length >= 8);
    for (const file of files) run(file, { TUNEBOOK_ISA: isa });
  });
}

for (const isa of available) {
  test(`results have the same bits on 1, 2 and 5 threads with ${isa}`, () => {
    const digest = (threads: number): string[] =>
      run("ops-digest.js", { TUNEBOOK_ISA: isa, TUNEBOOK_THREADS: String(threads) })
        .trim()
        .split("\n");
    const one = digest(1);
    assert.ok(one.length > 30);
    assert.deepEqual(digest(2), one);
    assert.deepEqual(digest(5), one);
  });
}
