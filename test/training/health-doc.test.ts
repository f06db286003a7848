// docs/health.md promises tests by name: each must be there.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "../../..");

test("every failure of docs/health.md has its rule and tests that exist under the names given", async () => {
  const text = await readFile(join(root, "docs/health.md"), "utf8");
  const rows = text.split("\n").filter((line) => line.startsWith("| ") && !/^\| (failure|---)/.test(line));
  assert.ok(rows.length >= 15);
  for (const row of rows) {
    const [, failure, rule, tests] = row.split(" | ").length === 3 ? ["", ...row.split(" | ")] : [];
    assert.ok(failure && rule && tests, row);
    const named = [...tests.matchAll(/`([\w/.-]+\.test\.ts)`: ("[^"]+"(?:, "[^"]+")*)/g)];
    assert.ok(named.length > 0, `no test for: ${failure}`);
    for (const [, file, list] of named) {
      const source = await readFile(join(root, "test", file!), "utf8");
      for (const [, name] of list!.matchAll(/"([^"]+)"/g))
        assert.ok(source.includes(name!), `${file} has no test "${name}"`);
    }
  }
});
