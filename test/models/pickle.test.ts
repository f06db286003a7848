/** Pickled weights are never read: the reason and the way out are in the message. */
import assert from "node:assert/strict";
import { cp, mkdtemp, rename, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { CheckpointError } from "../../src/errors.js";
import { loadModel } from "../../src/plan.js";
import { goldenPath } from "../golden.js";

// What torch.save writes: a zip archive, whose pickle here would run a program.
const PICKLE = Buffer.concat([Buffer.from("PK\x03\x04"), Buffer.from("cos\nsystem\n(S'touch owned'\ntR.")]);
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-pickle-"));
});
after(() => rm(folder, { recursive: true, force: true }));

const refused = (load: () => PromiseLike<unknown>, file: string, command: RegExp) =>
  assert.rejects(
    async () => load(),
    (error: Error) => {
      assert.ok(error instanceof CheckpointError, `${error.name}: ${error.message}`);
      assert.ok(error.message.includes(file), error.message);
      assert.match(error.message, /is a pickle, and reading a pickle can run any program/);
      assert.match(error.message, command);
      return true;
    },
  );

describe("pickled weights", () => {
  for (const name of ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "last.ckpt"]) {
    it(`${name}: refused in a folder and by its own path, with a command`, async () => {
      const model = join(folder, name.replaceAll(".", "-"));
      await cp(goldenPath("llama-gqa"), model, { recursive: true });
      await unlink(join(model, "model.safetensors"));
      for (const other of ["golden.safetensors"]) await unlink(join(model, other)).catch(() => {});
      await writeFile(join(model, name), PICKLE);
      const command = new RegExp(
        `python -c "import torch; .*torch\\.load\\('${name}', weights_only=True\\).*'model\\.safetensors'`,
      );
      await refused(() => loadModel(model), join(model, name), command);
      await refused(() => loadModel(join(model, name)), join(model, name), command);
    });
  }

  it("one that is called safetensors is found out", async () => {
    const model = join(folder, "renamed");
    await cp(goldenPath("llama-gqa"), model, { recursive: true });
    await writeFile(join(model, "model.safetensors"), PICKLE);
    await refused(() => loadModel(model), "model.safetensors", /WEIGHTS\.bin/);
  });

  it("a name that a shell would run is not spelled in the command", async () => {
    const model = join(folder, "named");
    await cp(goldenPath("llama-gqa"), model, { recursive: true });
    await unlink(join(model, "model.safetensors"));
    await writeFile(join(model, "$(touch owned)'+x+'.bin"), PICKLE);
    await refused(() => loadModel(model), "owned", /torch\.load\('WEIGHTS\.bin'/);
  });

  it("an adapter's adapter_model.bin is refused likewise", async () => {
    const adapter = join(folder, "adapter");
    await cp(goldenPath("adapter-rslora/adapter"), adapter, { recursive: true });
    await rename(join(adapter, "adapter_model.safetensors"), join(adapter, "adapter_model.bin"));
    using model = await loadModel(goldenPath("llama-gqa"));
    await refused(() => model.loadAdapter(adapter), "adapter_model.bin", /'adapter_model\.safetensors'/);
  });
});
