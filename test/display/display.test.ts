import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import {
  display,
  displaySymbol,
  isInterrupted,
  throwIfInterrupted,
  toBundle,
  toText,
} from "../../src/display/index.js";
import { InterruptedError } from "../../src/errors.js";
import { inCell, withInterrupt } from "./host.js";

const png = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);

test("bundles of values", async () => {
  assert.deepEqual(toBundle("x"), { "text/plain": "x" });
  assert.deepEqual(toBundle({ a: 1 }), { "text/plain": "{ a: 1 }" });
  assert.deepEqual(toBundle(undefined), { "text/plain": "undefined" });
  assert.deepEqual(toBundle(png), { "image/png": "iVBORw0KGgo=", "text/plain": "[PNG image, 8 B]" });
  assert.match(String((toBundle(new Uint8Array([1, 2])) as Record<string, string>)["text/plain"]), /Uint8Array/);
  const shown = { [displaySymbol]: () => Promise.resolve({ "text/html": "<b>x</b>" }) };
  assert.deepEqual(await toBundle(shown), { "text/html": "<b>x</b>", "text/plain": "[text/html]" });
});

test("a row of data with MIME types as keys is text, not a page", () => {
  const bundle = toBundle(JSON.parse('{"text/html":"<script>alert(1)</script>"}')) as Record<string, unknown>;
  assert.deepEqual(Object.keys(bundle), ["text/plain"]);
});

test("a display that fails says so", async () => {
  const bad = {
    [displaySymbol]() {
      throw new Error("no");
    },
  };
  const late = { [displaySymbol]: () => Promise.reject(new Error("late")) };
  assert.match(String(Object.values(toBundle(bad))[0]), /display failed with Error: no/);
  assert.match(String(Object.values(await toBundle(late))[0]), /display failed with Error: late/);
});

test("in a cell: shown once, then updated under its id and its cell", async () => {
  await inCell((host) => {
    const handle = display("one");
    host.current = "cell-2";
    handle.update("two");
    display("three", { id: handle.id });
    assert.deepEqual(host.texts, ["one", "two", "three"]);
    const options = host.published.map((each) => each.options);
    assert.deepEqual(
      options.map((each) => [each.id === handle.id, each.update, each.cell]),
      [
        [true, false, "cell-1"],
        [true, true, "cell-1"],
        [true, true, "cell-2"],
      ],
    );
  });
});

test("in a cell: a late picture does not cover a newer one, and the cell waits for it", async () => {
  await inCell(async (host) => {
    let draw: (bundle: object) => void = () => undefined;
    const slow = { [displaySymbol]: () => new Promise((resolve) => (draw = resolve)) };
    const handle = display(slow);
    assert.equal(host.held.length, 1);
    handle.update("newer");
    draw({ "text/plain": "older" });
    await handle.done;
    assert.deepEqual(host.texts, ["newer"]);
  });
});

test("raw bundles", async () => {
  await inCell((host) => {
    display({ "text/markdown": "*x*" }, { raw: true });
    assert.deepEqual(host.published[0]?.bundle, { "text/markdown": "*x*", "text/plain": "[text/markdown]" });
    assert.throws(() => display({ markdown: "x" }, { raw: true }), /MIME/);
  });
});

test("in plain Node it prints text", () => {
  const script = `
    import { display, table } from ${JSON.stringify(new URL("../../src/display/index.js", import.meta.url).href)};
    const handle = display("hello");
    handle.update("hello");
    handle.update({ a: 1 });
    display(table(["a"], [[1]]));`;
  const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" });
  assert.equal(stdout, "hello\n{ a: 1 }\na\n─\n1\n");
});

test("interrupts and signals", () => {
  assert.equal(isInterrupted(), false);
  assert.equal(isInterrupted(AbortSignal.abort()), true);
  withInterrupt((flag) => {
    throwIfInterrupted("the work");
    flag[0] = 1;
    assert.throws(() => throwIfInterrupted("the work"), InterruptedError);
  });
});

test("text of values", () => {
  assert.equal(toText("a"), "a");
  assert.equal(toText([1, "b"]), "[ 1, 'b' ]");
});
