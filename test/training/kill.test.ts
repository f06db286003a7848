import assert from "node:assert/strict";
import { test } from "node:test";
import { killAndResume } from "./kill.js";

test("a run killed at random moments ends with the adapter of one that was not (npm run soak:kill: 200 times)", async () => {
  const counts = await killAndResume(3, 11, () => {});
  assert.ok(counts.kills >= 3 && counts.finished >= 1);
});
