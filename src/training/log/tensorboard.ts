/**
 * TensorBoard's event files: records of { length, its checksum, an Event message, its checksum }. Only what scalars need of protobuf is written
 * (tensorflow/core/util/event.proto: wall_time 1, step 2, file_version 3, summary 5; summary.proto: value 1 with tag 1 and simple_value 2).
 */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { maskedCrc32c } from "./crc32c.js";

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

let files = 0;

/** Writes scalars into a folder that `tensorboard --logdir` reads; every run makes a file of its own. */
export class EventWriter {
  readonly file: string;
  #descriptor: number | undefined;

  constructor(folder: string, now: number = Date.now()) {
    mkdirSync(folder, { recursive: true });
    // Its readers look for "tfevents" and take several files of a folder by their time.
    const name = `events.out.tfevents.${Math.floor(now / 1000)}.${hostname()}.${process.pid}.${files++}`;
    this.file = join(folder, name);
    this.#descriptor = openSync(this.file, "wx");
    this.#write(event(now, undefined, field(3, BYTES, lengthed(Buffer.from("brain.Event:2")))));
  }

  /** One event with all values; those that are no finite number are left out. */
  scalars(step: number, values: Readonly<Record<string, number | undefined>>, now: number = Date.now()): void {
    const parts = Object.entries(values).flatMap(([tag, value]) => {
      if (value === undefined || !Number.isFinite(value)) return [];
      const single = Buffer.alloc(4);
      single.writeFloatLE(value);
      const inner = Buffer.concat([field(1, BYTES, lengthed(Buffer.from(tag))), field(2, FIXED32, single)]);
      return [field(1, BYTES, lengthed(inner))];
    });
    if (parts.length > 0) this.#write(event(now, step, field(5, BYTES, lengthed(Buffer.concat(parts)))));
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  // One write a record: a reader that looks meanwhile sees whole records.
  #write(data: Buffer): void {
    if (this.#descriptor === undefined) return;
    const head = Buffer.alloc(12);
    head.writeBigUInt64LE(BigInt(data.length));
    head.writeUInt32LE(maskedCrc32c(head.subarray(0, 8)), 8);
    const foot = Buffer.alloc(4);
    foot.writeUInt32LE(maskedCrc32c(data));
    const record = Buffer.concat([head, data, foot]);
    for (let at = 0; at < record.length; ) at += writeSync(this.#descriptor, record, at);
  }
}

function event(now: number, step: number | undefined, what: Buffer): Buffer {
  const time = Buffer.alloc(8);
  time.writeDoubleLE(now / 1000);
  return Buffer.concat([
    field(1, FIXED64, time),
    ...(step === undefined ? [] : [field(2, VARINT, varint(step))]),
    what,
  ]);
}

const field = (number: number, type: number, value: Buffer): Buffer =>
  Buffer.concat([varint(number * 8 + type), value]);

const lengthed = (bytes: Buffer): Buffer => Buffer.concat([varint(bytes.length), bytes]);

/** Seven bits a byte, the lowest first; for whole numbers from 0 to 2^53. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
}
