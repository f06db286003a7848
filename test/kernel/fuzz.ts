// Malformed, forged and replayed messages, from a seed. `npm run fuzz:protocol` sends a hundred thousand.
import { randomUUID } from "node:crypto";
import { KernelClient } from "../../kernel/protocol/client.js";
import { encode } from "../../kernel/protocol/message.js";
import { Signer } from "../../kernel/protocol/signing.js";
import { execute, type TestKernel, value } from "./support.js";

const CHANNELS = ["shell", "control", "stdin"] as const;
const BATCH = 2_000;

/** What came of it; everything but `sent` must be what it was before. */
export interface Fuzzed {
  sent: number;
  /** How often a message was acted upon. */
  acted: number;
  /** Heartbeats and answers that did not come. */
  missed: number;
}

/**
 * Sends `count` messages none of which may be acted upon, and asks the kernel after every batch whether it is well. Each would raise a
 * variable of the notebook, stop its cells, or end the kernel.
 */
export async function fuzz(
  kernel: TestKernel,
  count: number,
  seed = 1,
  tell = (_: number): void => {},
): Promise<Fuzzed> {
  const random = generator(seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
  const { client } = kernel;
  await execute(client, "var acted = 0;");
  const stranger = new KernelClient({ ...kernel.connection, key: "another key" }, randomUUID());
  const valid = (): Uint8Array[] => {
    const request = { code: "acted++", silent: random() < 0.5, store_history: false, allow_stdin: false };
    return pick([
      () => client.encode("execute_request", request),
      () => client.encode("shutdown_request", { restart: false }),
      () => client.encode("interrupt_request", {}),
      () => client.encode("comm_open", { comm_id: randomUUID(), target_name: "t", data: {} }),
      () => client.encode("input_reply", { value: "acted" }),
    ])();
  };
  // Sent once for good: harmless by themselves, but each raises the variable.
  const used: Uint8Array[][] = [];
  for (let i = 0; i < 20; i++) {
    const frames = client.encode("execute_request", { code: "acted++", silent: true, allow_stdin: false });
    used.push(frames);
    client.sendRaw("shell", frames);
  }
  // Once they have arrived: a copy that overtakes one on another channel would be the message, and the message the copy.
  await execute(client, "0");
  const signer = new Signer(kernel.connection.key, kernel.connection.signature_scheme);
  const signed = (...parts: Uint8Array[]): Uint8Array[] => [
    Buffer.from("<IDS|MSG>"),
    Buffer.from(signer.sign(parts)),
    ...parts,
  ];
  const bytes = (most: number): Buffer => Buffer.from(Array.from({ length: random() * most }, () => random() * 256));
  const flipped = (frames: Uint8Array[]): Uint8Array[] => {
    const at = 1 + Math.floor(random() * 5);
    const frame = Buffer.from(frames[at]!);
    if (frame.length > 0) frame[Math.floor(random() * frame.length)]! ^= 1 << Math.floor(random() * 8);
    return frames.map((one, i) => (i === at ? frame : one));
  };
  const kinds: (() => Uint8Array[])[] = [
    () => pick(used),
    () => flipped(valid()),
    () => stranger.encode("execute_request", { code: "acted++" }),
    () => valid().map((frame, i) => (i === 1 ? bytes(80) : frame)),
    () => valid().slice(0, random() * 6),
    () => valid().toReversed(),
    () => Array.from({ length: random() * 12 }, () => bytes(60)),
    () => signed(bytes(100), bytes(20), bytes(20), bytes(50)),
    () =>
      signed(
        Buffer.from(pick(["[]", "null", "7", '"x"', "{", ""])),
        ...["{}", "{}", "{}"].map((one) => Buffer.from(one)),
      ),
    () => valid().map((frame, i) => (i === 2 ? Buffer.concat([frame, Buffer.from(" ")]) : frame)),
    // The signature of one message on the frames of another.
    () => [...valid().slice(0, 2), ...valid().slice(2)],
    () => encode({ type: "shutdown_request", content: {}, session: "x" }, new Signer("")),
  ];
  let missed = 0;
  try {
    for (let sent = 0; sent < count; ) {
      for (let i = 0; i < BATCH && sent < count; i++, sent++) client.sendRaw(pick(CHANNELS), pick(kinds)());
      const alive = await client.heartbeat(5_000);
      const info = await client
        .request("control", "kernel_info_request", {}, { timeoutMs: 20_000 })
        .catch(() => undefined);
      if (!alive || info?.reply.content.status !== "ok") missed++;
      await execute(client, "0");
      tell(sent);
    }
    return { sent: count, acted: Number(await value(client, "acted")) - used.length, missed };
  } finally {
    stranger.close();
  }
}

// mulberry32: the same messages from the same seed.
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
