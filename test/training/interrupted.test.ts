import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { TrainOptions, TrainStep } from "../../src/index.js";
import { Parameter } from "../../src/nn/module.js";
import { fill as fillCall } from "../../src/tensor/calls.js";
import { defaultDevice } from "../../src/tensor/device.js";
import { I, recover, setInterruptFlag, settle, state, stats, updater } from "../../src/tensor/native.js";
import { fill } from "../../src/tensor/ops/elementwise.js";
import { empty, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { wholeUpdate } from "../../src/tensor/update.js";
import { Optimizer, type OptimizerOptions } from "../../src/training/optimizer.js";
import { adapted, adapterHash, options, pairs, rows, withFolders } from "./resumable.js";

const device = defaultDevice();
const place = device === "cuda" ? 1 : 0;
const word = (): Int32Array => new Int32Array(new SharedArrayBuffer(8));

/** Queues an operation and gives its number. */
function numbered(x: Tensor): number {
  fillCall(x.handle, x.size, 1);
  return I[0]!;
}

// The largest is paged where there is a GPU; decay and rates make several operations of an update.
const sizes = [120_000, 5000, 300, 40];
const kinds: Partial<OptimizerOptions>[] = [
  { name: "adamw" },
  { name: "adamw8bit" },
  { name: "adamw8bit", paged: true },
  { name: "sgd", momentum: 0.9 },
];

interface Trained {
  parameters: Parameter[];
  optimizer: Optimizer;
  /** Queues an update, with the gradient's norm clipped; gives the promise of that norm. */
  update(step: number): Promise<Float32Array>;
  /** Bits of parameters and moments. */
  bits(): Promise<Uint8Array[]>;
  dispose(): void;
}

function trained(kind: Partial<OptimizerOptions>): Trained {
  const parameters = sizes.map((n, k) => {
    const start = Float32Array.from({ length: n }, (_, i) => Math.sin(i + k));
    return new Parameter(k === 2 ? [n] : [n, 1]).adopt(tensor(start, { shape: k === 2 ? [n] : [n, 1], device }));
  });
  const rates = new Map([[parameters[1]!, 16]]);
  const numbers = { weightDecay: 0.1, epsilon: 1e-8, beta1: 0.9, beta2: 0.999, momentum: 0, rates };
  const optimizer = new Optimizer(parameters, { name: "adamw", ...numbers, ...kind });
  return {
    parameters,
    optimizer,
    update(step) {
      for (const [k, p] of parameters.entries())
        p.grad = tensor(
          Float32Array.from({ length: p.size }, (_, i) => Math.cos(i * step + k)),
          { shape: p.shape, device },
        );
      return wholeUpdate(device, () => {
        const norm = optimizer.step(1e-2, 1);
        const read = norm.data();
        norm.dispose();
        return read;
      });
    },
    async bits() {
      const all = parameters.flatMap((p): Tensor[] => [p, ...(Object.values(optimizer.state(p)) as Tensor[])]);
      const data = await Promise.all(all.map((t) => t.raw()));
      return data.map((d) => new Uint8Array(d.buffer, d.byteOffset, d.byteLength).slice());
    },
    dispose() {
      for (const p of parameters) {
        p.grad?.dispose();
        p.dispose();
      }
      optimizer.dispose();
    },
  };
}

for (const kind of kinds) {
  const title = [kind.paged ? "paged" : "", kind.name].join(" ").trim();
  test(`an interrupt at any operation of an update lets all of it be done or nothing: ${title}`, async () => {
    const flag = word();
    const { handles } = stats();
    const marker = empty([1], "float32", device);
    setInterruptFlag(flag);
    try {
      for (const steps of [0, 1]) {
        const whole = trained(kind);
        for (let t = 1; t <= steps; t++) await whole.update(t);
        const before = steps === 0 ? undefined : await whole.bits();
        const first = numbered(marker);
        const [norm] = await whole.update(steps + 1);
        const operations = numbered(marker) - first - 1;
        const after = await whole.bits();
        whole.dispose();
        assert.ok(operations >= 4, `${operations} operations`);
        for (let at = 0; at <= operations; at++) {
          const cut = trained(kind);
          for (let t = 1; t <= steps; t++) await cut.update(t);
          await settle(device);
          updater.strikeAfter(place, numbered(marker) + 1 + at);
          numbered(marker); // the one before the update
          const read = cut.update(steps + 1);
          fill(marker, 7); // dropped
          if (at === 0) await assert.rejects(read, { name: "InterruptedError" });
          else assert.deepEqual(await read, Float32Array.of(norm!), "the update's own figures arrive");
          await assert.rejects(settle(device), { name: "InterruptedError" });
          assert.equal(state(device), "interrupted");
          Atomics.store(flag, 0, 0);
          recover(device);
          if (at > 0) assert.deepEqual(await cut.bits(), after, `struck after operation ${at} of ${operations}`);
          else if (before) assert.deepEqual(await cut.bits(), before, "struck before the update");
          assert.deepEqual(await marker.data(), Float32Array.of(1));
          cut.dispose();
        }
      }
    } finally {
      updater.strikeAfter(place, 0);
      setInterruptFlag(null);
      recover();
      marker.dispose();
    }
    assert.equal(stats().handles, handles);
  });
}

test("an update whose JavaScript fails or is stopped in its middle is not begun", async () => {
  const one = trained({ name: "adamw" });
  await one.update(1);
  const before = await one.bits();
  const x = fill(empty([4], "float32", device), 1);
  await x.data(); // it has been looked at: what is dropped from now on leaves it as it was
  const broken = (): never =>
    wholeUpdate(device, () => {
      void one.optimizer.step(1e-2, 1);
      fill(x, 2);
      throw new Error("on purpose");
    });
  assert.throws(broken, /on purpose/);
  assert.deepEqual(await one.bits(), before);
  assert.deepEqual(await x.data(), new Float32Array(4).fill(1));
  // A kernel stops a thread without its `finally`; the library's reset, or the next update, ends what it began.
  updater.updateBegin(place);
  fill(x, 3);
  const y = fill(empty([4], "float32", device), 3);
  recover(device);
  assert.deepEqual(await x.data(), new Float32Array(4).fill(1));
  await assert.rejects(y.data(), /never computed, since the update that it belongs to was broken off/);
  updater.updateBegin(place);
  fill(x, 4);
  wholeUpdate(device, () => fill(x, 5));
  assert.deepEqual(await x.data(), new Float32Array(4).fill(5));
  x.dispose();
  y.dispose();
  one.dispose();
});

test("an update that does not fit the queue begins before its end, and is still done as a whole", async () => {
  const flag = word();
  const x = fill(empty([1], "float32", device), 0);
  setInterruptFlag(flag);
  try {
    await settle(device);
    updater.strikeAfter(place, numbered(x) + 20_000);
    const read = wholeUpdate(device, () => {
      for (let i = 1; i <= 30_000; i++) fill(x, i);
      return x.data();
    });
    assert.deepEqual(await read, Float32Array.of(30_000));
    assert.equal(Atomics.load(flag, 0), 1);
  } finally {
    Atomics.store(flag, 0, 0);
    updater.strikeAfter(place, 0);
    setInterruptFlag(null);
    recover();
  }
  x.dispose();
});

const interruptSymbol = Symbol.for("tunebook.interrupt/1");

// After the third step the adapter's gradients are looked at, and pairs have figures of their own: both are read behind the update.
for (const [method, last] of [
  ["sft", 4],
  ["sft", 2],
  ["orpo", 3],
] as const)
  test(`a run that is interrupted around its update is saved, and goes on to the same adapter: ${method}, step ${last + 1}`, () =>
    withFolders(async (folder, output) => {
      const { validation: _, evalEvery: __, keepBest: ___, ...rest } = options;
      const given: TrainOptions = { ...rest, method, steps: 6, saveEvery: 100 };
      const data: readonly Record<string, unknown>[] = method === "sft" ? rows : pairs;
      const marker = empty([1], "float32", device);
      /** Trains; an interrupt rejects the first await at once, and the run itself when it has ended. */
      const train = async (more: TrainOptions, each?: (step: TrainStep) => void): Promise<void> => {
        const model = await adapted(folder, { target: ["q_proj"] });
        try {
          const run = model.train(data, { ...given, ...more, callbacks: each ? [each] : [] });
          await run.then(
            () => {},
            () => {},
          );
          await run;
        } finally {
          model.dispose();
        }
      };
      const numbers: number[] = [];
      await train({ output: join(output, "whole") }, () => void numbers.push(numbered(marker)));
      const wanted = await adapterHash(join(output, "whole"));
      const operations = numbers[last]! - numbers[last - 1]!;
      const flag = word();
      // A step ends with its update: sum of squares, clipping and moments, the loss's figures.
      const places = [1, operations >> 1, ...Array.from({ length: 10 }, (_, i) => operations - 8 + i)];
      const seen = new Set<number>();
      for (const at of places) {
        Atomics.store(flag, 0, 0);
        // As the kernel does it: flag and signal, and the flag is lowered when the cell has been told.
        let controller = new AbortController();
        (globalThis as Record<symbol, unknown>)[interruptSymbol] = { flag, signal: () => controller.signal };
        setInterruptFlag(flag);
        const watch = setInterval(() => {
          if (Atomics.load(flag, 0) === 0) return;
          clearInterval(watch);
          const interrupted = controller;
          controller = new AbortController(); // of the next cell
          interrupted.abort(new Error("interrupted"));
          setTimeout(() => Atomics.store(flag, 0, 0), 20);
        }, 1);
        const cut = join(output, `cut-${at}`);
        let message = "";
        try {
          await train({ output: cut }, ({ step }) => {
            if (step === last) updater.strikeAfter(place, numbered(marker) + at);
          }).catch((error) => {
            message = String(error);
          });
        } finally {
          clearInterval(watch);
          updater.strikeAfter(place, 0);
          setInterruptFlag(null);
          delete (globalThis as Record<symbol, unknown>)[interruptSymbol];
          recover();
        }
        const step = Number(/interrupted after step (\d+)\. Step \1 is saved in/.exec(message)?.[1]);
        assert.ok(step === last || step === last + 1, `struck after ${at} of ${operations} operations: ${message}`);
        seen.add(step);
        await train({ output: cut, resume: true });
        assert.equal(await adapterHash(join(cut)), wanted, `struck after ${at} of ${operations} operations`);
      }
      assert.deepEqual([...seen].sort(), [last, last + 1]);
      marker.dispose();
    }));
