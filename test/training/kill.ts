import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { type FSWatcher, watch } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Random } from "../../src/data/random.js";
import { adapterHash, withFolders } from "./resumable.js";

/** What became of the kills. */
export interface KillCounts {
  kills: number;
  /** Those that left a checkpoint unfinished. */
  duringSave: number;
  /** Runs that came to their end and were compared. */
  finished: number;
}

/**
 * Trains in processes of their own that are killed (SIGKILL) at random moments, every third while a checkpoint is being written, and started again
 * until the run has come to its end; then its adapter must equal that of a run nobody has killed. Over and over until there were enough kills.
 *
 * @throws Error when an adapter differs or a process fails by itself.
 */
export async function killAndResume(kills: number, seed: number, tell: (text: string) => void): Promise<KillCounts> {
  const counts: KillCounts = { kills: 0, duringSave: 0, finished: 0 };
  const random = new Random(seed);
  await withFolders(async (model, folder) => {
    const whole = join(folder, "whole");
    const started = performance.now();
    await ended(child(model, whole));
    const seconds = (performance.now() - started) / 1000;
    const want = await adapterHash(whole);
    while (counts.kills < kills) {
      const output = join(folder, "killed");
      await rm(output, { recursive: true, force: true });
      await mkdir(output);
      // The last run of a round goes to its end, whenever that round has had its share of kills.
      const share = Math.min(kills - counts.kills, 6);
      for (let i = 0; i < share; i++) {
        const saving = counts.kills % 3 === 2;
        const alive = child(model, output);
        const over = once(alive, "exit");
        await once(alive, "message"); // it trains
        const strike = async (): Promise<void> => {
          if (saving) await unfinished(output, over);
          await sleep(random.nextFloat() * (saving ? 12 : 300 * Math.max(1, seconds / 2)));
        };
        await Promise.race([strike(), over]);
        const [code, signal] = alive.kill("SIGKILL") ? await over : await over;
        if (signal !== "SIGKILL") {
          if (code !== 0) throw new Error(`A process that trains ended by itself with code ${code}.`);
          break;
        }
        counts.kills++;
        if ((await readdir(output)).some((name) => name.endsWith(".tmp"))) counts.duringSave++;
      }
      await ended(child(model, output));
      const got = await adapterHash(output);
      if (got !== want) throw new Error(`After ${counts.kills} kills the adapter is ${got}, not ${want}.`);
      const left = (await readdir(output)).filter((name) => name.includes("checkpoint"));
      if (left.length > 3) throw new Error(`Folders were left behind: ${left.join(", ")}.`);
      counts.finished++;
      tell(`${counts.kills} kills, ${counts.duringSave} during a save, ${counts.finished} runs with equal adapters`);
    }
  });
  return counts;
}

function child(model: string, output: string): ChildProcess {
  return fork(fileURLToPath(new URL("kill-child.js", import.meta.url)), [model, output], {
    env: { ...process.env, TUNEBOOK_THREADS: "1" },
  });
}

async function ended(process: ChildProcess): Promise<void> {
  const [code, signal] = await once(process, "exit");
  if (code !== 0) throw new Error(`A process that trains ended with ${signal ?? `code ${code}`}.`);
}

/** Resolves when a checkpoint is begun in a folder, or the process is over. */
async function unfinished(output: string, over: Promise<unknown>): Promise<void> {
  let watcher: FSWatcher | undefined;
  const begun = new Promise<void>((resolve) => {
    watcher = watch(output, (_, name) => {
      if (name?.endsWith(".tmp")) resolve();
    });
  });
  await Promise.race([begun, over]);
  watcher?.close();
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
