import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Answer, KernelClient } from "../../kernel/protocol/client.js";
import { type Launched, launch } from "../../kernel/protocol/launch.js";
import type { Message } from "../../kernel/protocol/message.js";

/** A kernel in an empty folder of its own. */
export interface TestKernel extends Launched {
  folder: string;
}

export async function startKernel(env: NodeJS.ProcessEnv = {}): Promise<TestKernel> {
  const folder = mkdtempSync(join(tmpdir(), "tunebook-test-"));
  const launched = await launch({ cwd: folder, env: { ...process.env, ...env } });
  const stop = async (): Promise<void> => {
    await launched.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...launched, folder, stop };
}

/** Executes code with a bound on its time. */
export function execute(client: KernelClient, code: string, content: Record<string, unknown> = {}): Promise<Answer> {
  return client.execute(code, { timeoutMs: 60_000 }, content);
}

/** Executes code that must succeed; returns the text of its result. */
export async function value(client: KernelClient, code: string): Promise<string | undefined> {
  const answer = await execute(client, code);
  assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
  const result = of(answer, "execute_result")[0];
  return (result?.content.data as Record<string, string> | undefined)?.["text/plain"];
}

/** The messages of one type on IOPub. */
export function of(answer: Answer, type: string): Message[] {
  return answer.iopub.filter((message) => message.header.msg_type === type);
}

/** All that was printed to a stream. */
export function printed(answer: Answer, name: "stdout" | "stderr"): string {
  return of(answer, "stream")
    .filter(({ content }) => content.name === name)
    .map(({ content }) => String(content.text))
    .join("");
}

/** The kinds of messages in order; a status is named by its state. */
export function sequence(answer: Answer): string[] {
  return answer.iopub.map(({ header, content }) =>
    header.msg_type === "status" ? String(content.execution_state) : header.msg_type,
  );
}

/** Resolves with the first IOPub message that fits. */
export function published(client: KernelClient, fits: (message: Message) => boolean): Promise<Message> {
  return new Promise((resolve) => {
    const look = (message: Message): void => {
      if (!fits(message)) return;
      client.off("iopub", look);
      resolve(message);
    };
    client.on("iopub", look);
  });
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
