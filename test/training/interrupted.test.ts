import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultDevice } from "../../src/tensor/device.js";
import { recover, setInterruptFlag, settle, stats } from "../../src/tensor/native.js";
import { UpdateMarks } from "../../src/training/interrupted.js";

test("an interrupt is known to have struck before an update, within it, or after it", async () => {
  const flag = new Int32Array(new SharedArrayBuffer(8));
  const device = defaultDevice();
  const { handles } = stats();
  const marks = new UpdateMarks(device);
  setInterruptFlag(flag);
  /** Does the work while queued operations are dropped. */
  const interrupted = async (work: () => void): Promise<void> => {
    await settle(device);
    Atomics.store(flag, 0, 1);
    work();
    await assert.rejects(settle(device), { name: "InterruptedError" });
    Atomics.store(flag, 0, 0);
  };
  try {
    assert.equal(await marks.where(), "before");
    for (let i = 0; i < 3; i++) {
      marks.begin();
      marks.end();
      await settle(device);
      marks.done();
    }
    assert.equal(await marks.where(), "before");
    await interrupted(() => {
      marks.begin();
      marks.end();
    });
    assert.equal(await marks.where(), "before");
    marks.begin();
    marks.end();
    await interrupted(() => {});
    assert.equal(await marks.where(), "after");
    marks.done();
    assert.equal(await marks.where(), "before");
    marks.begin();
    await interrupted(() => marks.end());
    assert.equal(await marks.where(), "within");
  } finally {
    setInterruptFlag(null);
    recover();
    marks.dispose();
  }
  assert.equal(stats().handles, handles);
});
