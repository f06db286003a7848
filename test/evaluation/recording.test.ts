// Operations that are recorded and run again (native/graph.h): what they keep, what stands in the way, and what is left afterwards.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceError, scope, type Tensor, tensor } from "../../src/index.js";
import * as calls from "../../src/tensor/calls.js";
import { randn } from "../../src/tensor/create.js";
import { defaultDevice } from "../../src/tensor/device.js";
import { recorder, recover, stats } from "../../src/tensor/native.js";
import { Recording, recordings } from "../../src/tensor/recording.js";
import { outsideScope } from "../../src/tensor/scope.js";
import { empty } from "../../src/tensor/tensor.js";

const device = defaultDevice();
const values = async (t: Tensor): Promise<number[]> => [...(await t.data())];

test("a recording runs with what stands in its tensors, in memory that nobody else gets", async () => {
  const before = stats(device);
  const x = tensor([1, 2, 3, 4]);
  const y = tensor([0, 0, 0, 0]);
  const weight = tensor([10, 20, 30, 40]);
  const work = (): void => {
    scope(() => {
      const a = x.mul(weight);
      const b = a.add(x).tanh().mul(0).add(a);
      calls.copy(b.handle, y.handle, 4);
    });
  };
  const recording = Recording.of(device, work);
  assert.equal(recording.obstacle, undefined);
  assert.ok(recording.ops >= 5);
  assert.deepEqual(await values(y), [10, 40, 90, 160]);
  // Neither the freed weight's memory nor that of the temporaries is given to others while the recording lives.
  weight.dispose();
  const others = Array.from({ length: 40 }, (_, i) => tensor([i, i, i, i]));
  x.set(Float32Array.of(2, 2, 2, 2));
  recording.launch();
  assert.deepEqual(await values(y), [20, 40, 60, 80]);
  for (const [i, other] of others.entries()) assert.deepEqual(await values(other), [i, i, i, i]);
  x.set(Float32Array.of(3, 3, 3, 3));
  for (let i = 0; i < 5; i++) recording.launch();
  assert.deepEqual(await values(y), [30, 60, 90, 120]);
  for (const t of [x, y, ...others]) t.dispose();
  recording.launch(); // its tensors are gone, its memory is not
  recording.dispose();
  recording.dispose();
  assert.throws(() => recording.launch(), /has been freed/);
  assert.equal(recordings(device).alive, 0);
  assert.equal(stats(device).handles, before.handles);
  assert.equal(stats(device).liveBytes, before.liveBytes);
});

test("lists of tensors are recorded", async () => {
  const parts = [tensor([3]), tensor([4, 0])];
  const sum = tensor([0]);
  const handles = parts.map((p) => p.handle);
  using recording = Recording.of(device, () => calls.sumSquares(handles, sum.handle));
  assert.deepEqual(await values(sum), [25]);
  parts[0]!.set(Float32Array.of(5));
  calls.fill(sum.handle, 1, 0);
  for (let i = 0; i < 3; i++) recording.launch();
  assert.deepEqual(await values(sum), [41]);
  for (const t of [...parts, sum]) t.dispose();
});

test("two recordings are equal when operations, numbers and tensors are", () => {
  const [x, y, z] = [tensor([1, 2]), tensor([1, 2]), tensor([1, 2])];
  const work =
    (factor: number, to: Tensor, more = false) =>
    (): void =>
      scope(() => {
        const a = more ? x.mul(factor).add(x) : x.mul(factor);
        calls.copy(a.handle, to.handle, 2);
      });
  const all = [work(2, y), work(2, y), work(3, y), work(2, z), work(2, y, true)].map((w) => Recording.of(device, w));
  assert.deepEqual(
    all.map((r) => r.equals(all[0]!)),
    [true, true, false, false, false],
  );
  for (const r of all) r.dispose();
  for (const t of [x, y, z]) t.dispose();
});

test("what cannot be run again is told", async () => {
  const before = stats(device).handles;
  const x = tensor([1, 2]);
  const y = tensor([0, 0]);
  const left: Tensor[] = [];
  const obstacle = (fn: () => void): string => {
    using recording = Recording.of(device, fn);
    return recording.obstacle ?? "none";
  };
  const copied = (from: () => Tensor): void => scope(() => calls.copy(from().handle, y.handle, 2));
  assert.equal(
    obstacle(() => copied(() => x.mul(2))),
    "none",
  );
  assert.match(
    obstacle(() => void y.set(Float32Array.of(1, 1))),
    /sent from JavaScript/,
  );
  assert.match(
    obstacle(() => void left.push(outsideScope(() => x.mul(2)))),
    /still in use/,
  );
  assert.match(
    obstacle(() => left.pop()!.dispose()),
    /from before was freed/,
  );
  let read: Promise<unknown> | undefined;
  assert.match(
    obstacle(() => {
      read = x.data();
    }),
    /read by JavaScript/,
  );
  await read;
  // Random numbers go on from call to call.
  const twice = [0, 1].map(() => Recording.of(device, () => copied(() => randn([2], { device }))));
  assert.ok(!twice[0]!.equals(twice[1]!));
  for (const r of twice) r.dispose();
  x.dispose();
  y.dispose();
  assert.equal(stats(device).handles, before);
});

test("an error while recording, or an interrupted cell, leaves nothing behind", () => {
  const before = stats(device);
  const x = tensor([1, 2]);
  const failing = (): void =>
    scope(() => {
      x.mul(2);
      throw new Error("own");
    });
  assert.throws(() => Recording.of(device, failing), /own/);
  recorder.recordBegin(device === "cuda" ? 1 : 0); // whose end is skipped
  scope(() => void x.mul(3).add(1));
  recover(device);
  x.dispose();
  assert.equal(recordings(device).alive, 0);
  assert.equal(stats(device).handles, before.handles);
  assert.equal(stats(device).liveBytes, before.liveBytes);
});

test("an operation that fails when it is run again is named", async () => {
  const table = tensor([
    [1, 2],
    [3, 4],
  ]);
  const ids = tensor(Int32Array.of(1));
  const y = empty([1, 2]);
  const recording = Recording.of(device, () => calls.embedding(table.handle, ids.handle, y.handle, 1, 2, 2));
  assert.deepEqual(await values(y), [3, 4]);
  recording.launch();
  ids.set(Int32Array.of(7));
  recording.launch();
  await assert.rejects(y.data(), (e) => e instanceof DeviceError && /embedding: .*7/.test(e.message));
  recover(device);
  ids.set(Int32Array.of(0));
  recording.launch();
  assert.deepEqual(await values(y), [1, 2]);
  for (const t of [table, ids, y, recording]) t.dispose();
});
