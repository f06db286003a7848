import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { embeddedModel, loadModel } from "../../src/index.js";

const CLI = fileURLToPath(new URL("../../kernel/cli.js", import.meta.url));
const ROWS = fileURLToPath(new URL("../../../notebooks/data/instructions.jsonl", import.meta.url));

describe("tunebook train", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tunebook-train-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const config = (changes: object = {}): object => ({
    model: embeddedModel("chatglm"),
    addLora: { rank: 4, target: ["query_key_value"], seed: 1 },
    data: {
      train: ROWS,
      split: { validation: 20, test: 20, seed: 2 },
      rows: 160,
      format: { prompt: "{instruction}\n{input}", completion: "\n{output}" },
    },
    train: { batch: 4, accumulate: 2, lr: 1e-2, seed: 3 },
    evaluate: { metrics: ["loss"] },
    ...changes,
  });
  const write = (name: string, changes?: object): string => {
    writeFileSync(join(folder, name), JSON.stringify(config(changes)));
    return name;
  };
  const command = (...args: string[]): { status: number | null; out: string; err: string } => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, "train", ...args], {
      encoding: "utf8",
      cwd: folder,
      timeout: 120_000,
    });
    return { status, out: stdout, err: stderr };
  };
  const adapter = (of: string): Buffer => readFileSync(join(folder, of, "adapter_model.safetensors"));

  it("trains, measures before and after, and saves; options can be set on the command line", async () => {
    write("first.json", { save: { adapter: "saved", export: { folder: "whole", dtype: "float32" } } });
    const { status, out, err } = command("first.json", "--set", "train.epochs=2", "--set", "model.dtype=float32");
    assert.equal(status, 0, err);
    assert.match(out, /^160 rows to train on, 20 to watch, 20 to measure on\n/);
    assert.match(out, /trainable params: 4,224 \|\| all params: 484,896 /);
    assert.match(out, /\nsteps +40\n/);
    const [, before, after] = /\nloss +(\S+) +(\S+)\n/.exec(out) ?? [];
    assert.ok(Number(after) < 0.7 * Number(before), out);
    // The terminal has the library's bar; in a pipe its lines.
    assert.match(err, /Training │█+│ 40\/40 steps · 100% · .*steps\/s · .*loss/);
    assert.deepEqual(adapter("saved"), adapter("runs/first"));
    using whole = await loadModel(join(folder, "whole"), { progress: false });
    assert.equal(whole.dtype, "float32");
    using again = await loadModel(embeddedModel("chatglm"), { dtype: "float32", progress: false }).loadAdapter(
      join(folder, "saved"),
    );
    const [merged, beside] = [await whole.logits([[5, 6, 7]]), await again.logits([[5, 6, 7]])];
    assert.ok(merged.every((x, i) => Math.abs(x - beside[i]!) < 1e-3));
  });

  it("a dry run says what would be done, and does nothing", () => {
    write("dry.json", { quantize: { type: "nf4", doubleQuant: true } });
    const { status, out, err } = command("dry.json", "--dry-run");
    assert.equal(status, 0, err);
    assert.match(out, /20 steps of 8 rows, 20 an epoch, 0 of warmup; checkpoints in runs\/dry/);
    assert.match(out, /the first 160 rows: \d+ tokens on average, \d+ in the longest, \d+ of them trained/);
    assert.match(out, /Memory of a step of 4 x 256 tokens[\s\S]*\npeak +[\d.]+ MiB/);
    assert.ok(!existsSync(join(folder, "runs/dry")));
  });

  it("names what is wrong, with what it is most like, before anything is loaded", () => {
    const refused = (changes: object, message: RegExp, ...args: string[]): void => {
      // No such model and no such rows: whoever looked for them would fail otherwise.
      write("wrong.json", { model: "no/such/model/here", ...changes });
      const { status, out, err } = command("wrong.json", ...args);
      assert.equal(status, 1, out);
      assert.equal(out, "");
      assert.match(err, message);
      assert.match(err, /wrong\.json/);
    };
    refused({ trian: {} }, /"trian" is not known\. Did you mean "train"\?/);
    refused({}, /train: lr must be a number above 0/, "--set", "train.lr=0");
    writeFileSync(join(folder, "broken.json"), '{"model": "a",}');
    assert.match(command("broken.json").err, /broken\.json cannot be read: .* at character 14/);
  });

  it("Ctrl-C saves a checkpoint and says how to go on; the resumed run ends as one that was never stopped", async () => {
    write("long.json", {
      evaluate: undefined,
      train: { batch: 4, accumulate: 2, lr: 1e-2, seed: 3, log: "steps.jsonl" },
    });
    const log = join(folder, "steps.jsonl");
    const straight = command("long.json", "--set", "train.epochs=12", "--set", "train.output=runs/straight");
    assert.equal(straight.status, 0, straight.err);
    rmSync(log);
    const args = ["long.json", "--set", "train.epochs=12"];
    const child = spawn(process.execPath, [CLI, "train", ...args], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    let err = "";
    child.stdout.resume();
    child.stderr.on("data", (text) => (err += String(text)));
    const ended = once(child, "exit") as Promise<[number | null]>;
    const begun = (): boolean => existsSync(log) && readFileSync(log, "utf8").includes('"step":3');
    while (!begun() && child.exitCode === null) await new Promise((next) => setTimeout(next, 20));
    child.kill("SIGINT");
    assert.equal((await ended)[0], 130, err);
    const said = /saved in (runs\/long\/checkpoint-(\d+))\. To go on: (tunebook train .*)\n/.exec(err);
    assert.ok(said, err);
    assert.equal(said[3], "tunebook train long.json --set train.epochs=12 --resume");
    assert.ok(Number(said[2]) < 240 && readdirSync(join(folder, said[1]!)).includes("manifest.json"));
    const resumed = command(...args, "--resume");
    assert.equal(resumed.status, 0, resumed.err);
    assert.match(resumed.err, new RegExp(`resumed from step ${said[2]}`));
    assert.deepEqual(adapter("runs/long"), adapter("runs/straight"));
  });
});
