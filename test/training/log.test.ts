import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadModel, type TrainStep } from "../../src/index.js";
import { crc32c, maskedCrc32c } from "../../src/training/log/crc32c.js";
import { EventWriter } from "../../src/training/log/tensorboard.js";
import { colourRows, withModelFolder } from "../facade/small.js";

interface Scalar {
  step: number;
  tag: string;
  value: number;
}

/** An independent reader: fields by number and type, whatever they are; checksums bit by bit. */
function readEvents(bytes: Buffer): { version: string; scalars: Scalar[]; times: number[] } {
  let version = "";
  const scalars: Scalar[] = [];
  const times: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    assert.equal(bytes.readUInt32LE(at + 8), slowMasked(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    assert.equal(data.length, length, "a record is cut");
    assert.equal(bytes.readUInt32LE(at + 12 + length), slowMasked(data));
    at += 16 + length;
    const event = fields(data);
    times.push((event.get(1)![0] as Buffer).readDoubleLE());
    version ||= String(event.get(3)?.[0] ?? "");
    for (const summary of event.get(5) ?? [])
      for (const value of fields(summary as Buffer).get(1) ?? []) {
        const parts = fields(value as Buffer);
        const single = (parts.get(2)![0] as Buffer).readFloatLE();
        scalars.push({ step: Number(event.get(2)![0]), tag: String(parts.get(1)![0]), value: single });
      }
  }
  return { version, scalars, times };
}

function fields(data: Buffer): Map<number, (Buffer | bigint)[]> {
  const out = new Map<number, (Buffer | bigint)[]>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < data.length) {
    const key = Number(varint());
    const type = key & 7;
    const size = type === 1 ? 8 : type === 5 ? 4 : type === 2 ? Number(varint()) : 0;
    const value = type === 0 ? varint() : data.subarray(at, at + size);
    at += size;
    out.set(key >> 3, [...(out.get(key >> 3) ?? []), value]);
  }
  return out;
}

function slowMasked(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let i = 0; i < 8; i++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  crc ^= 0xffffffffn;
  return Number(((((crc >> 15n) | (crc << 17n)) & 0xffffffffn) + 0xa282ead8n) & 0xffffffffn);
}

test("CRC-32C gives the values of RFC 3720, B.4", () => {
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  assert.equal(crc32c(Buffer.from("123456789")), 0xe3069283);
  assert.equal(maskedCrc32c(Buffer.from("a")), slowMasked(Buffer.from("a")));
});

test("event files hold what was written: large steps, no values that are no numbers", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-events-"));
  try {
    const writer = new EventWriter(join(folder, "runs"), 1_700_000_000_500);
    writer.scalars(1, { "train/loss": 2.5, "eval/loss": undefined }, 1_700_000_001_000);
    writer.scalars(2 ** 40 + 3, { "train/loss": -1e-3, "train/größe": 7, bad: Number.NaN });
    writer.scalars(4, { bad: Number.POSITIVE_INFINITY });
    writer.close();
    writer.close();
    assert.match(writer.file, /events\.out\.tfevents\.1700000000\./);
    const { version, scalars, times } = readEvents(await readFile(writer.file));
    assert.equal(version, "brain.Event:2");
    assert.deepEqual(scalars, [
      { step: 1, tag: "train/loss", value: 2.5 },
      { step: 2 ** 40 + 3, tag: "train/loss", value: Math.fround(-1e-3) },
      { step: 2 ** 40 + 3, tag: "train/größe", value: 7 },
    ]);
    assert.deepEqual(times.slice(0, 2), [1_700_000_000.5, 1_700_000_001]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a run's log holds its steps, the measurements and the summary; with logEvery the mean loss of the steps between", () =>
  withModelFolder(async (folder) => {
    const jsonl = join(folder, "logs", "run.jsonl");
    const tensorboard = join(folder, "tb");
    using model = await loadModel(folder, { weights: "random", seed: 1, progress: false }).addLora({ rank: 4 });
    const result = await model.train(colourRows(16), {
      validation: colourRows(4),
      steps: 10,
      batch: 4,
      evalEvery: 5,
      logEvery: 2,
      log: { jsonl, tensorboard },
      progress: false,
    });
    const steps = result.history.toRows() as TrainStep[];
    const lines = (await readFile(jsonl, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map((l) => (l.event === "step" ? l.step : l.event)),
      ["start", 2, 4, 5, 6, 8, 10, "end"],
    );
    const near = (a: number, b: number): void => assert.ok(Math.abs(a - b) < 1e-12, `${a} ${b}`);
    near(lines[1].loss, (steps[0]!.loss + steps[1]!.loss) / 2);
    near(lines[4].loss, steps[5]!.loss);
    near(lines[3].validationLoss, steps[4]!.validationLoss!);
    near(lines.at(-1).loss, result.loss);
    assert.equal(lines.at(-1).steps, 10);
    const [file] = await readdir(tensorboard);
    const { scalars } = readEvents(await readFile(join(tensorboard, file!)));
    const of = (tag: string): Scalar[] => scalars.filter((s) => s.tag === tag);
    assert.deepEqual(
      of("eval/loss").map((s) => [s.step, s.value]),
      [5, 10].map((k) => [k, Math.fround(steps[k - 1]!.validationLoss!)]),
    );
    assert.equal(of("train/loss").length, 6);
    assert.deepEqual(
      of("train/learning_rate").map((s) => s.value),
      [2, 4, 5, 6, 8, 10].map((k) => Math.fround(steps[k - 1]!.lr)),
    );
    await assert.rejects(
      async () => model.train(colourRows(4), { log: { wandb: "x" } as never, progress: false }),
      /log must be the path/,
    );
  }));
