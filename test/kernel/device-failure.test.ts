// Operations that fail while a cell runs, and a GPU that fails for good (the stand-in of one).
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { execute, startKernel, type TestKernel } from "./support.js";

describe("an operation that fails", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
  });
  after(() => kernel.stop());

  it("is named in its cell, and leaves the next one alone", async () => {
    const code = 'import { nn, ones, tensor } from "tunebook"; const table = new nn.Embedding(4, 2);';
    assert.equal((await execute(kernel.client, code)).reply.content.status, "ok");
    const { reply } = await execute(kernel.client, "await table.forward(tensor(Int32Array.of(1, 9))).data();");
    assert.equal(reply.content.ename, "DeviceError", JSON.stringify(reply.content));
    const next = await execute(kernel.client, "await ones([4]).sum().item()");
    assert.equal(next.reply.content.status, "ok", JSON.stringify(next.reply.content));
  });
});

describe("a device that is lost", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel({ TUNEBOOK_FAKE_CUDA: "1", TUNEBOOK_FAKE_CUDA_LOST: "binary" });
  });
  after(() => kernel.stop());

  const fail = 'const x = tensor([1, 2], { device: "cuda" }); await x.add(x).data();';

  it("is named in its cell, ends the executor alone, and the next cell runs on a fresh one", async () => {
    const setup = await execute(kernel.client, 'import { tensor } from "tunebook"; const kept = 1;');
    assert.equal(setup.reply.content.status, "ok", JSON.stringify(setup.reply.content));
    const { reply } = await execute(kernel.client, fail);
    assert.equal(reply.content.status, "error");
    assert.equal(reply.content.ename, "DeviceError");
    assert.match(String(reply.content.evalue), /illegal memory access/);
    assert.match((reply.content.traceback as string[]).join("\n"), /the next cell runs in a new one/);
    const gone = await execute(kernel.client, "kept");
    assert.match(String(gone.reply.content.evalue), /Cannot find name 'kept'/);
    const next = await execute(kernel.client, "1 + 1");
    assert.equal(next.reply.content.status, "ok", JSON.stringify(next.reply.content));
  });
});
