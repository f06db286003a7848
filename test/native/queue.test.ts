import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceError, InterruptedError, OutOfMemoryError, StateError } from "../../src/errors.js";
import { adamw, axpy, copy, embedding, fill, gemm, sumSquares } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { child, random, read, send } from "./helpers.js";

test("operations run in the order of their calls, reads among them", async () => {
  const x = native.alloc(4 * 8, 0);
  const one = send(new Float32Array(8).fill(1));
  fill(x, 8, 0);
  const reads: Promise<Float32Array>[] = [];
  for (let i = 0; i < 50; i++) {
    reads.push(read(x, 8));
    axpy(one, x, 8, 1);
  }
  for (const [i, values] of (await Promise.all(reads)).entries()) assert.deepEqual([...values], new Array(8).fill(i));
  native.free(x);
  native.free(one);
});

test("an upload takes the array's content at the call, and views reach parts of a tensor", async () => {
  const x = native.alloc(4 * 1000, 0);
  const data = new Float32Array(1000).fill(1);
  for (let i = 0; i < 100; i++) fill(x, 1000, 9); // keeps the queue busy, so that the upload is staged
  native.upload(x, data);
  data.fill(2);
  native.upload(x, data.subarray(0, 10), 40);
  const part = native.view(x, 36, 12, 0);
  const values = await read(part, 3);
  assert.deepEqual([...values], [1, 2, 2]);
  native.free(x);
  assert.deepEqual([...(await read(part, 3))], [1, 2, 2]); // the memory lives as long as the view
  native.free(part);
});

test("a block freed while work is queued is handed out again in queue order", async () => {
  const before = native.stats().liveBytes;
  const total = send(new Float32Array(256));
  for (let i = 0; i < 2000; i++) {
    const x = native.alloc(1024, 0);
    fill(x, 256, 1);
    axpy(x, total, 256, 1);
    native.free(x);
  }
  assert.deepEqual([...(await read(total, 256))], new Array(256).fill(2000));
  native.free(total);
  assert.equal(native.stats().liveBytes, before);
});

test("a hundred thousand tiny operations pass, and the waiting queue stays bounded", async () => {
  const x = native.alloc(16, 0);
  const one = send(Float32Array.of(1, 1, 1, 1));
  fill(x, 4, 0);
  let most = 0;
  for (let i = 0; i < 100_000; i++) {
    axpy(one, x, 4, 1);
    if (i % 500 === 0) most = Math.max(most, native.stats().queued);
  }
  assert.deepEqual([...(await read(x, 4))], [100_000, 100_000, 100_000, 100_000]);
  assert.ok(most <= 8192, `${most} were queued`);
  native.free(x);
  native.free(one);
});

test("a failed operation stops the queue, and every read names it until recover()", async () => {
  const table = send(random(12));
  const ids = send(Int32Array.of(0, 7));
  const y = native.alloc(2 * 4 * 4, 0);
  fill(y, 8, 5);
  const earlier = read(y, 8);
  embedding(table, ids, y, 2, 4, 3);
  const failed = read(y, 8);
  assert.deepEqual([...(await earlier)], new Array(8).fill(5));
  await assert.rejects(failed, (error: Error) => {
    assert.ok(error instanceof DeviceError);
    assert.match(error.message, /^embedding: .*7.*\(rows 2, dim 4, vocab 3\)/s);
    assert.match(error.message, /recorded at .*queue\.test/);
    return true;
  });
  assert.equal(native.state(), "failed");
  fill(y, 8, 6); // dropped
  await assert.rejects(native.settle(), DeviceError);
  assert.throws(() => native.sync(), DeviceError);
  native.recover();
  assert.equal(native.state(), "running");
  assert.deepEqual([...(await read(y, 8))], new Array(8).fill(5));
  for (const h of [table, ids, y]) native.free(h);
});

test("what dropped work should have computed is refused, not read as whatever stands there", async () => {
  const table = send(random(12));
  const ids = send(Int32Array.of(0, 7));
  const y = native.alloc(32, 0);
  const kept = send(new Float32Array(8).fill(5));
  embedding(table, ids, y, 2, 4, 3);
  const later = native.alloc(32, 0);
  const part = native.view(later, 16, 16, 0);
  fill(later, 8, 1); // dropped
  axpy(later, kept, 8, 1); // dropped: what stood there still stands
  await assert.rejects(native.settle(), DeviceError);
  native.recover();
  for (const h of [y, later, part])
    await assert.rejects(
      read(h, 4),
      /never computed, since an operation failed before: embedding: .*Compute it again/s,
    );
  assert.deepEqual([...(await read(kept, 8))], new Array(8).fill(5));
  assert.throws(() => copy(later, kept, 8), /copy: tensor "x" was never computed/);
  // Written again, by an op or from outside, they are as any other.
  fill(later, 8, 2);
  assert.deepEqual([...(await read(part, 4))], [2, 2, 2, 2]);
  native.upload(y, new Float32Array(8).fill(3));
  assert.deepEqual([...(await read(y, 8))], new Array(8).fill(3));
  const flag = new Int32Array(new SharedArrayBuffer(4));
  native.setInterruptFlag(flag);
  const more = native.alloc(32, 0);
  Atomics.store(flag, 0, 1);
  fill(more, 8, 1);
  await assert.rejects(native.settle(), InterruptedError);
  Atomics.store(flag, 0, 0);
  native.recover();
  native.setInterruptFlag(null);
  await assert.rejects(read(more, 8), /never computed, since it was interrupted/);
  assert.deepEqual([...(await read(part, 4))], [2, 2, 2, 2]);
  for (const h of [table, ids, y, kept, later, part, more]) native.free(h);
});

test("a tensor of which a part was dropped is refused, one that was looked at before keeps its value", async () => {
  const table = send(random(12));
  const ids = send(Int32Array.of(0, 7));
  const x = send(new Float32Array(8).fill(3));
  const seen = native.alloc(32, 0);
  fill(seen, 8, 1);
  assert.deepEqual([...(await read(seen, 8))], new Array(8).fill(1));
  const made = native.alloc(32, 0);
  const [first, second] = [native.view(made, 0, 16, 0), native.view(made, 16, 16, 0)];
  fill(first, 4, 2);
  const whole = native.alloc(32, 0);
  fill(whole, 8, 1);
  axpy(x, whole, 8, 1);
  const y = native.alloc(32, 0);
  embedding(table, ids, y, 2, 4, 3); // fails
  fill(second, 4, 2); // dropped: half of it is there
  axpy(x, seen, 8, 1); // dropped: it stays what it was
  await assert.rejects(native.settle(), DeviceError);
  native.recover();
  for (const h of [made, first, second])
    await assert.rejects(
      read(h, 4),
      /download: the tensor was never computed, since an operation failed before: embedding/,
    );
  assert.throws(
    () => copy(made, seen, 8),
    /copy: tensor "x" was never computed, since an operation failed before: embedding/,
  );
  assert.throws(() => axpy(x, made, 8, 1), /axpy: tensor "y" was never computed/);
  assert.deepEqual([...(await read(seen, 8))], new Array(8).fill(1));
  assert.deepEqual([...(await read(whole, 8))], new Array(8).fill(4));
  fill(made, 8, 5); // made anew
  axpy(x, made, 8, 1);
  assert.deepEqual([...(await read(made, 8))], new Array(8).fill(8));
  for (const h of [table, ids, x, seen, made, first, second, whole, y]) native.free(h);
});

test("the interrupt flag drops queued work and rejects reads; recover() starts anew", async () => {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  native.setInterruptFlag(flag);
  const size = 256;
  const a = send(random(size * size));
  const y = native.alloc(size * size * 4, 0);
  for (let i = 0; i < 3000; i++) gemm(a, a, 0, y, size, size, size, 0, 0, size, size, size, 0, 1, 0);
  const pending = read(y, 4);
  const busy = native.stats().busySeconds;
  Atomics.store(flag, 0, 1);
  await assert.rejects(pending, InterruptedError);
  assert.ok(native.stats().busySeconds - busy < 0.2, "the queued products were not run");
  await assert.rejects(native.settle(), InterruptedError);
  Atomics.store(flag, 0, 0);
  assert.equal(native.state(), "interrupted");
  native.recover();
  fill(y, 4, 3);
  assert.deepEqual([...(await read(y, 4))], [3, 3, 3, 3]);
  native.setInterruptFlag(null);
  native.free(a);
  native.free(y);
});

test("handles: a freed or absent tensor, a second free and a view outside are refused at the call", () => {
  const x = native.alloc(64, 0);
  assert.throws(
    () => native.view(x, 32, 64, 0),
    /a view of 64 bytes at byte 32 does not lie inside a tensor of 64 bytes/,
  );
  assert.throws(() => fill(0, 4, 1), /fill: tensor "y" is missing/);
  assert.throws(() => native.upload(x, new Float32Array(17)), /68 bytes at byte 0 do not fit a tensor of 64 bytes/);
  assert.throws(() => fill(x, 1.5, 1), /fill: expected 32-bit integers, got n = 1.5/);
  native.free(x);
  assert.throws(() => native.free(x), StateError);
  assert.throws(() => fill(x, 4, 1), /fill: tensor "y" has been freed/);
  const other = native.alloc(64, 0); // takes the freed place, not the freed handle
  assert.notEqual(other, x);
  native.free(other);
});

test("lists of tensors travel in one command", async () => {
  const xs = Array.from({ length: 300 }, (_, i) => send(new Float32Array(4).fill(i)));
  const y = native.alloc(4, 0);
  sumSquares(xs, y);
  const expected = 4 * xs.reduce((s, _, i) => s + i * i, 0);
  assert.equal((await read(y, 1))[0], Math.fround(expected));
  assert.throws(
    () => adamw(new Array(70_000).fill(xs[0]), [], [], [], 0, 1, 1, 0, 0, 0, 0, 0),
    /too long for one command/,
  );
  for (const h of [...xs, y]) native.free(h);
});

test("live bytes return to where they were, the peak is kept, and trim() gives cached blocks back", async () => {
  await native.settle();
  native.resetPeak();
  const { liveBytes, handles } = native.stats();
  const held = Array.from({ length: 20 }, (_, i) => native.alloc(100_000 * (i + 1), 0));
  assert.ok(native.stats().liveBytes >= liveBytes + 21_000_000);
  for (const h of held) native.free(h);
  const after = native.stats();
  assert.equal(after.liveBytes, liveBytes);
  assert.equal(after.handles, handles);
  assert.ok(after.peakBytes >= liveBytes + 21_000_000);
  assert.ok(after.cachedBytes >= 21_000_000);
  native.trim();
  assert.equal(native.stats().cachedBytes, 0);
});

test("memory that is exhausted is an OutOfMemoryError with sizes, and smaller requests still succeed", () => {
  const before = native.stats();
  assert.throws(
    () => native.alloc(before.limitBytes + 1, 0),
    (error: Error) =>
      error instanceof OutOfMemoryError &&
      /Not enough memory for a tensor of \d+ MiB: .* of a limit of \d+ MiB/.test(error.message),
  );
  native.free(native.alloc(1024, 0));
  assert.equal(native.stats().liveBytes, before.liveBytes);
});

test("dtypes are converted by copy, so bytes reach the device as they are", async () => {
  const x = send(Int32Array.of(1, -2, 3));
  const y = native.alloc(12, 0);
  copy(x, y, 3);
  assert.deepEqual([...(await read(y, 3))], [1, -2, 3]);
  native.free(x);
  native.free(y);
});

test("a process may end with queued work, with a read that nobody waits for, and by an exception", () => {
  for (const [how, status] of [
    ["exit", 3],
    ["throw", 1],
    ["idle", 0],
    ["pending", 0],
    ["worker", 0],
    ["limit", 0],
  ] as const) {
    const run = child("ending.js", how === "limit" ? { TUNEBOOK_MEMORY_LIMIT: "20000000" } : {}, how);
    assert.equal(run.status, status, `${how}: signal ${run.signal}\n${run.stdout}\n${run.stderr}`);
    if (how === "pending") assert.match(run.stdout, /read 2/);
    if (how === "limit")
      assert.match(
        run.stdout,
        /^OutOfMemoryError: Not enough memory for a tensor of 9.537 MiB: .* of a limit of 19 MiB.*\nfits again/s,
      );
    if (how === "worker") assert.match(run.stdout, /already open in another thread/);
  }
});
