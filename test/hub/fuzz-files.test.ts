/** A share of `npm run fuzz:files`: 20,000 damaged files, which are refused or loaded. TUNEBOOK_FUZZ_SEED gives others. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { it } from "node:test";
import { fuzzFiles } from "./fuzz-files.js";

const root: string = join(import.meta.dirname, "../../..");
const COUNT = 20_000;

it(`${COUNT} damaged files are refused by the library's errors, or loaded`, async () => {
  const results = await fuzzFiles(COUNT, Number(process.env.TUNEBOOK_FUZZ_SEED ?? 1));
  assert.equal(results.length, 5);
  for (const { kind, runs, refused, loaded, findings } of results) {
    assert.deepEqual(findings, [], kind);
    assert.equal(runs, COUNT / 5);
    // Mutations that nothing noticed, or that spared nothing, would test nothing.
    assert.ok(refused > runs / 20 && loaded > runs / 50, `${kind}: ${refused} refused, ${loaded} loaded`);
  }
});

it("the native reader under AddressSanitizer and UndefinedBehaviorSanitizer", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["scripts/fuzz-native.mjs", "4000", "7"], {
    cwd: root,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr + stdout);
  assert.match(stdout, /4000 loads: \d{3,} read, \d{2,} cut short, \d{3,} refused/);
});
