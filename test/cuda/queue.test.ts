// Two devices in one process: routing, memory, faults and run-ahead, on the stand-in for a GPU (native/fake_cuda.cc), so everywhere.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

process.env.TUNEBOOK_FAKE_CUDA = "1";
process.env.TUNEBOOK_CUDA_MEMORY_LIMIT = String(600 * 2 ** 20);
const { addon, alloc, free, read, run, send, Stopped, view } = await import("./addon.js");
addon.openDevice("cuda");

/** Runs queue-child.js with a stand-in of its own. */
function child(how: string, environment: Record<string, string> = {}): string {
  const file = fileURLToPath(new URL("./queue-child.js", import.meta.url));
  const env = { ...process.env, ...environment };
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, how], {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(status, 0, `${how}: ${stdout}\n${stderr}`);
  return stdout.trim();
}

test("handles tell their device, and commands run where their tensors are", async () => {
  const x = send(Float32Array.of(1, 2, 3), 1);
  const y = send(Float32Array.of(10, 20, 30), 1);
  const z = send(Float32Array.of(5, 5, 5), 0);
  assert.equal((x >>> 30) & 1, 1);
  assert.equal((z >>> 30) & 1, 0);
  run("axpy", [x, y], [3], [1]);
  run("axpy", [z, z], [3], [1]);
  assert.deepEqual([...(await read(y, 3))], [11, 22, 33]);
  assert.deepEqual([...(await read(z, 3))], [10, 10, 10]);
  const part = view(y, 4, 8);
  assert.equal((part >>> 30) & 1, 1);
  assert.deepEqual([...(await read(part, 2))], [22, 33]);
  for (const h of [x, y, z, part]) assert.ok(free(h));
  assert.ok(!free(x));
});

test("a command that mixes devices is refused at the call", () => {
  const [x, y] = [alloc(16, 1), alloc(16, 0)] as [number, number];
  assert.throws(() => run("axpy", [x, y], [4], [1]), /axpy: tensor "y" is on the CPU, and others .* are on the GPU/);
  assert.throws(() => run("axpy", [y, x], [4], [1]), /axpy: tensor "y" is on the GPU, and others .* are on the CPU/);
  assert.throws(() => run("sum_squares", [[x, y], x], []), /sum_squares: tensor "x" is on the CPU/);
  assert.throws(() => run("gemm", [y, y, x, y], [1, 1, 1, 0, 0, 1, 1, 1, 0], [1, 0]), /tensor "bias" is on the GPU/);
  free(x);
  assert.throws(() => run("fill", [x], [4], [1]), /fill: tensor "y" has been freed/);
  free(y);
});

test("transfer moves bytes both ways, after what is queued", async () => {
  const [a, b, c] = [alloc(4000, 0), alloc(4000, 1), alloc(4000, 0)] as [number, number, number];
  run("fill", [a], [1000], [7]);
  addon.transfer(a, b);
  run("axpy", [b, b], [1000], [1]);
  addon.transfer(b, c);
  assert.deepEqual([...(await read(c, 1000))], new Array(1000).fill(14));
  const small = alloc(8, 1);
  assert.throws(() => addon.transfer(a, small), /4000 bytes does not fit one of 8/);
  for (const h of [a, b, c, small]) free(h);
});

test("uploads, ops and reads keep their order on a device that runs behind", async () => {
  const x = alloc(32, 1);
  const one = send(new Float32Array(8).fill(1), 1);
  run("fill", [x], [8], [0]);
  const reads: Promise<Float32Array>[] = [];
  for (let i = 0; i < 200; i++) {
    reads.push(read(x, 8));
    if (i === 100) addon.upload(x, new Float32Array(8).fill(1000), 0);
    else run("axpy", [one, x], [8], [1]);
  }
  for (const [i, values] of (await Promise.all(reads)).entries())
    assert.equal(values[3], i <= 100 ? i : 1000 + i - 101, `read ${i}`);
  free(x);
  free(one);
});

test("a fault that is found later names its op and its values, and stops what follows until recover()", async () => {
  const table = send(new Float32Array(12), 1);
  const ids = send(Int32Array.of(0, 7), 1);
  const y = alloc(32, 1);
  run("fill", [y], [8], [5]);
  const earlier = read(y, 8);
  run("embedding", [table, ids, y], [2, 4, 3]);
  const failed = read(y, 8);
  for (let i = 0; i < 10; i++) run("fill", [y], [8], [9]);
  assert.deepEqual([...(await earlier)], new Array(8).fill(5));
  await assert.rejects(failed, (error: unknown) => {
    assert.ok(error instanceof Stopped);
    assert.match(error.message, /^embedding: id 7 at row 1/);
    assert.deepEqual([error.kind, error.device, error.code], ["failed", 1, ""]);
    return true;
  });
  assert.equal(addon.state(1), "failed");
  assert.equal(addon.state(0), "running");
  assert.throws(() => addon.sync(1), /embedding/);
  addon.recover(1);
  run("fill", [y], [8], [6]);
  assert.deepEqual([...(await read(y, 8))], new Array(8).fill(6));
  for (const h of [table, ids, y]) free(h);
});

test("the segments of a device are cut and joined: no two tensors overlap, and little lies idle", async () => {
  addon.trim(1);
  const start = addon.stats(1);
  addon.resetPeak(1);
  let seed = 7;
  const random = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return (seed >>> 0) / 2 ** 32;
  };
  const held: { handle: number; count: number; value: number }[] = [];
  let live = 0;
  let most = 0;
  for (let i = 0; i < 6000; i++) {
    const count = Math.floor(random() < 0.5 ? 1 + random() * 5000 : 4 ** (5 + random() * 6)) + 1;
    if (held.length < 60 && live + count * 4 < 200 * 2 ** 20) {
      const handle = alloc(count * 4, 1);
      assert.notEqual(handle, 0, `${live} bytes are live`);
      // Both ends are written: an overlap shows in one of them.
      run("fill", [handle], [Math.min(count, 300)], [i]);
      const end = view(handle, (count - 1) * 4, 4);
      run("fill", [end], [1], [i]);
      free(end);
      held.push({ handle, count, value: i });
      live += count * 4;
    }
    if (random() < 0.55 && held.length > 0) {
      const [one] = held.splice(Math.floor(random() * held.length), 1) as [(typeof held)[number]];
      if (i % 7 === 0) {
        const first = await read(one.handle, 1);
        const last = new Float32Array(1);
        await addon.download(one.handle, last, (one.count - 1) * 4);
        assert.deepEqual([first[0], last[0]], [one.value, one.value]);
      }
      free(one.handle);
      live -= one.count * 4;
    }
    most = Math.max(most, addon.stats(1).reservedBytes);
  }
  const peak = addon.stats(1).peakBytes;
  assert.ok(
    most < peak * 1.4 + 64 * 2 ** 20,
    `${most / 2 ** 20} MiB were reserved for a peak of ${peak / 2 ** 20} MiB`,
  );
  for (const { handle } of held) free(handle);
  assert.equal(addon.stats(1).liveBytes, start.liveBytes);
  addon.trim(1);
  const end = addon.stats(1);
  assert.ok(
    end.reservedBytes <= start.reservedBytes,
    `${end.reservedBytes} bytes stay reserved, ${start.reservedBytes} were`,
  );
});

test("exhausted memory gives 0, cached segments make room, and everything comes back", () => {
  addon.trim(1);
  const { liveBytes, limitBytes, reservedBytes } = addon.stats(1);
  assert.equal(limitBytes, 600 * 2 ** 20);
  const MiB = 2 ** 20;
  const blocks = Array.from({ length: 5 }, () => alloc(100 * MiB, 1));
  assert.ok(blocks.every((h) => h !== 0));
  assert.equal(alloc(150 * MiB, 1), 0);
  for (const h of blocks.splice(0, 3)) free(h);
  const big = alloc(290 * MiB, 1); // three cached segments of 100 MiB go back for it
  assert.notEqual(big, 0);
  assert.equal(alloc(700 * MiB, 1), 0);
  for (const h of [...blocks, big]) free(h);
  addon.trim(1);
  assert.equal(addon.stats(1).liveBytes, liveBytes);
  assert.ok(addon.stats(1).reservedBytes <= reservedBytes);
});

test("an interrupt waits only for what little has been launched, and drops the rest", () => {
  const seconds = Number(child("interrupt", { TUNEBOOK_FAKE_CUDA_DELAY: "2000" }));
  assert.ok(seconds < 0.6, `${seconds} s`);
});

test("a read does not hold up the work behind it", () => {
  assert.match(child("ahead", { TUNEBOOK_FAKE_CUDA_DELAY: "1000" }), /^[1-9]\d* ops ahead$/);
});

test("a lost device fails every later call with the same words, and the CPU goes on", () => {
  const lines = child("lost", { TUNEBOOK_FAKE_CUDA_LOST: "axpy" }).split("\n");
  assert.ok(
    lines.every((line) => /lost 1 .*an illegal memory access/.test(line)) && lines.length === 4,
    lines.join("\n"),
  );
});

test("without a driver or the library the message says so, and which", () => {
  const file = fileURLToPath(new URL("./queue-child.js", import.meta.url));
  const env = { ...process.env, TUNEBOOK_FAKE_CUDA: "0" };
  const { status, stderr, stdout } = spawnSync(process.execPath, [file, "open"], {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  if (status === 0) assert.equal(stdout.trim(), "opened");
  else
    assert.match(
      stderr,
      /no NVIDIA driver was found|no GPU is visible|driver is too old|this build has no CUDA backend: .*npm run build/,
    );
  assert.throws(() => addon.openDevice("tpu"), /there is no device "tpu", expected "cuda" or "cuda:N"/);
  assert.throws(() => addon.openDevice("cuda:3"), /cuda:0 is open in this process, and one process works on one GPU/);
  assert.equal(addon.openDevice("cuda:0").name, "stand-in for a GPU");
});

test("a process ends while a device still works", () => {
  assert.equal(child("exit", { TUNEBOOK_FAKE_CUDA_DELAY: "1000" }), "");
});
