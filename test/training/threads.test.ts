// One result for every number of threads: training steps, what they leave in an adapter, and texts. (test/native/ops-isa.test.ts does so for single ops.)
import assert from "node:assert/strict";
import { test } from "node:test";
import { child } from "../native/helpers.js";

for (const isa of ["", "avx2", "portable"]) {
  test(`training and decoding have the same bits on 1, 2, 3 and 5 threads${isa === "" ? "" : ` with ${isa}`}`, (t) => {
    const run = (threads: number): string[] | undefined => {
      const program = new URL("threads-child.js", import.meta.url).href;
      const { status, stdout, stderr } = child(program, {
        TUNEBOOK_THREADS: String(threads),
        ...(isa === "" ? {} : { TUNEBOOK_ISA: isa }),
      });
      if (/this processor cannot run/.test(stderr)) return undefined;
      assert.equal(status, 0, stderr);
      return stdout.trim().split("\n");
    };
    const one = run(1);
    if (!one) return t.diagnostic(`${isa}: not on this processor`);
    assert.equal(one.length, 4 * 6);
    assert.equal(new Set(one).size, one.length); // names and digests are there
    for (const threads of [2, 3, 5]) assert.deepEqual(run(threads), one, `${threads} threads`);
  });
}
