import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../../src/display/format.js";

function each<T>(write: (value: T) => string, cases: readonly (readonly [T, string])[]): void {
  for (const [value, text] of cases) assert.equal(write(value), text, String(value));
}

test("bytes", () => {
  each(format.formatBytes, [
    [0, "0 B"],
    [1023, "1023 B"],
    [1536, "1.50 KiB"],
    [10 * 1024 ** 2, "10.0 MiB"],
    [1023.9 * 1024, "1.00 MiB"],
    [16 * 1024 ** 3, "16.0 GiB"],
    [-2048, "-2.00 KiB"],
  ]);
});

test("durations", () => {
  each(format.formatDuration, [
    [0.00002, "20 µs"],
    [0.32, "320 ms"],
    [12.34, "12.3 s"],
    [59.99, "1 min 00 s"],
    [245, "4 min 05 s"],
    [3599.9, "1 h 00 min"],
    [7380, "2 h 03 min"],
    [90000, "1 d 01 h"],
    [Number.NaN, "?"],
  ]);
});

test("numbers, percents and counts", () => {
  each(format.formatNumber, [
    [12460, "12,460"],
    [0.5, "0.5"],
    [3.14559, "3.146"],
    [1234.567, "1,235"],
    [0.0001234, "0.0001234"],
    [0.00000123, "1.23e-6"],
    [-0.25, "-0.25"],
    [Number.NaN, "NaN"],
    [Number.NEGATIVE_INFINITY, "-∞"],
    [1e21, "1e+21"],
  ]);
  assert.equal(format.formatPercent(0.1234), "12.3%");
  each(format.formatCount, [
    [999, "999"],
    [12345, "12.3 K"],
    [1236000000, "1.24 B"],
    [999_950, "1.00 M"],
  ]);
});

test("a column's numbers share their decimals", () => {
  const write = format.columnFormatter([2.34567, 0.5, 12]);
  assert.deepEqual([2.34567, 0.5, 12].map(write), ["2.35", "0.50", "12.00"]);
  const rates = format.columnFormatter([2e-4, 1.95e-4]);
  assert.deepEqual([2e-4, 1.95e-4].map(rates), ["0.000200", "0.000195"]);
  assert.equal(format.columnFormatter([1, 2000])(2000), "2,000");
  assert.equal(format.columnFormatter([1e-9, 5])(1e-9), "1e-9");
});

test("unlike metrics stand for themselves, the cells of a matrix do not", () => {
  const values = [12.412, 0.31, 12460];
  assert.deepEqual(values.map(format.columnFormatter(values)), ["12.41", "0.31", "12,460"]);
  const cells = [0.997, -0.00001, 0.5];
  assert.deepEqual(cells.map(format.matrixFormatter(cells)), ["0.997", "0.000", "0.500"]);
});

test("text for one terminal line", () => {
  assert.equal(format.oneLine("a\r\nb\tc\u001b[31m\u202ed"), "a⏎b c␛[31m\ufffdd");
  assert.equal(format.displayWidth("你好é"), 5);
  assert.equal(format.displayWidth("e\u0301"), 1);
  assert.equal(format.cut("abcdef", 4), "abc…");
  assert.equal(format.cut("你好你好", 5), "你好…");
  assert.equal(format.cut("abcd", 4), "abcd");
  assert.equal(format.pad("你", 4, "right"), "  你");
});
