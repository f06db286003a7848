/** Checkpoints as folders: whole or not there at all, checked before they are used, the last two kept. */
import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { toItsEnd } from "../display/host.js";
import { CheckpointError } from "../errors.js";
import { ConfigFields, readFields } from "../hub/config.js";
import { isObject } from "../hub/json.js";
import { SafetensorsFile } from "../hub/safetensors.js";
import { replaceFile, syncFolder } from "../hub/safetensors-write.js";

/** A file of a checkpoint, as it was meant to be written. */
export interface FileFacts {
  bytes: number;
  sha256: string;
}

/** A checkpoint that can be read; whether its files are as they were written, {@link damageOf} says. */
export interface Checkpoint {
  folder: string;
  /** Optimizer steps that it has behind it. */
  step: number;
  /** Counts the checkpoints of a folder: a run that was started anew saves lower steps later. */
  saved: number;
  files: ReadonlyMap<string, FileFacts>;
}

const MANIFEST = "manifest.json";
const FORMAT = 1;
/** Good checkpoints that stay. */
export const KEPT = 2;
// The second part names one that a new one of the same step is taking the place of.
const NAME = /^checkpoint-(\d+)(\.replaced-[0-9a-f]+)?$/;
const UNFINISHED = /^\.checkpoint-\d+\.(\d+)\.[0-9a-f]+\.tmp$/;
const CHUNK = 1 << 20;

/** Hash of a manifest's own content, so that a damaged one is known. */
function seal(step: number, saved: number, files: ReadonlyMap<string, FileFacts>): string {
  const lines = [...files].map(([name, { bytes, sha256 }]) => `${name} ${bytes} ${sha256}`).sort();
  return createHash("sha256")
    .update([FORMAT, step, saved, ...lines].join("\n"))
    .digest("hex");
}

/** A checkpoint that is being written: it has no name that anybody looks for until `commit`. */
export class NewCheckpoint {
  /** Where its files are to be written, all directly in it. */
  readonly folder: string;
  readonly step: number;
  private readonly output: string;

  private constructor(output: string, step: number) {
    this.output = output;
    this.step = step;
    this.folder = join(output, `.checkpoint-${step}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`);
  }

  /** Makes its folder, and `output` where it is missing. */
  static async begin(output: string, step: number): Promise<NewCheckpoint> {
    const made = new NewCheckpoint(output, step);
    await mkdir(made.folder, { recursive: true });
    return made;
  }

  /**
   * Flushes the files, writes the manifest as the last one, gives the folder its name, and only then takes older checkpoints away.
   *
   * @param meant what the files should hold where that is known: one that was cut short by the system is found out.
   * @param saved number of the checkpoint, above all others in `output`.
   * @throws CheckpointError for a file that is not as it was meant; errors of the file system as they are.
   */
  async commit(meant: ReadonlyMap<string, FileFacts>, saved: number): Promise<Checkpoint> {
    const { folder, step, output } = this;
    const files = new Map<string, FileFacts>();
    for (const name of (await readdir(folder)).sort()) {
      const facts = await factsOf(join(folder, name), true);
      const expected = meant.get(name);
      if (!expected) await requireWhole(join(folder, name));
      if (expected && (expected.bytes !== facts.bytes || expected.sha256 !== facts.sha256))
        throw new CheckpointError(
          `${join(folder, name)} should have ${expected.bytes} bytes and has ${facts.bytes}, or others: the disk did not keep what was written to it.`,
        );
      files.set(name, facts);
    }
    const missing = [...meant.keys()].find((name) => !files.has(name));
    if (missing !== undefined) throw new CheckpointError(`${join(folder, missing)} has vanished while it was saved.`);
    const manifest = { format: FORMAT, step, saved, files: Object.fromEntries(files), seal: seal(step, saved, files) };
    const text = `${JSON.stringify(manifest, null, 1)}\n`;
    await replaceFile(join(folder, MANIFEST), async (file) => void (await file.writeFile(text)));
    await checkedManifest(folder);
    const name = join(output, `checkpoint-${step}`);
    const replaced = `${name}.replaced-${randomBytes(4).toString("hex")}`;
    const moved = await rename(name, replaced).then(
      () => true,
      (error) => absent(error),
    );
    try {
      await rename(folder, name);
    } catch (error) {
      if (moved) await rename(replaced, name).catch(() => {});
      throw error;
    }
    await syncFolder(output);
    return { folder: name, step, saved, files };
  }

  /** Takes away what was written; never throws. */
  async discard(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true }).catch(() => {});
  }
}

/** Of files whose bytes are not known beforehand: that they were not cut short. */
async function requireWhole(path: string): Promise<void> {
  if (path.endsWith(".safetensors")) await (await SafetensorsFile.open(path)).close();
  if (!path.endsWith(".json")) return;
  try {
    const text = await readFile(path, "utf8");
    toItsEnd(() => JSON.parse(text));
  } catch (cause) {
    throw new CheckpointError(`${path} was not written whole: the disk did not keep what was written to it.`, {
      cause,
    });
  }
}

function absent(error: unknown): false {
  if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
  throw error;
}

/** Size and hash of a file, read in pieces; `flush`: it is brought to the disk too. */
async function factsOf(path: string, flush = false): Promise<FileFacts> {
  const file = await open(path, flush && process.platform === "win32" ? "r+" : "r");
  try {
    if (flush) await file.sync();
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(CHUNK);
    let bytes = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK, bytes);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      bytes += bytesRead;
    }
    return { bytes, sha256: hash.digest("hex") };
  } finally {
    await file.close();
  }
}

/** Reads a manifest. @throws an error whose message says what is wrong with it. */
async function checkedManifest(folder: string): Promise<Checkpoint> {
  const fields = await readFields(join(folder, MANIFEST));
  const format = fields.integer("format");
  if (format !== FORMAT)
    throw new CheckpointError(`${fields.where} has format ${format}, this version reads ${FORMAT}`);
  const step = fields.integer("step", { min: 0 });
  const saved = fields.integer("saved", { min: 0 });
  const listed = fields.get("files");
  if (!isObject(listed)) throw new CheckpointError(`${fields.where} names no files`);
  const files = new Map<string, FileFacts>();
  for (const [name, value] of Object.entries(listed)) {
    if (basename(name) !== name || !isObject(value)) throw new CheckpointError(`${fields.where} names a strange file`);
    const each = new ConfigFields(value, fields.where);
    files.set(name, { bytes: each.integer("bytes", { min: 0 }), sha256: each.string("sha256") });
  }
  if (fields.string("seal") !== seal(step, saved, files))
    throw new CheckpointError(`${fields.where} is not as it was written`);
  return { folder, step, saved, files };
}

/** What is wrong with a checkpoint's files, all of which are read; `undefined`: nothing. */
export async function damageOf({ folder, files }: Checkpoint): Promise<string | undefined> {
  for (const [name, { bytes, sha256 }] of files) {
    try {
      const facts = await factsOf(join(folder, name));
      if (facts.bytes !== bytes) return `${name} has ${facts.bytes} bytes instead of ${bytes}`;
      if (facts.sha256 !== sha256) return `${name} is not as it was written (its SHA-256 differs)`;
    } catch (error) {
      return `${name} cannot be read: ${(error as Error).message}`;
    }
  }
  return undefined;
}

/** A checkpoint's folder, with what its manifest says or why it says nothing. */
export interface Listed {
  folder: string;
  step: number;
  checkpoint: Checkpoint | undefined;
  damage: string | undefined;
}

/** The checkpoints in a folder: those without a readable manifest, whose age nothing tells, then the newest first. */
export async function listCheckpoints(output: string): Promise<Listed[]> {
  const names = await readdir(output).catch((error) => absent(error) || []);
  const found: Listed[] = [];
  for (const name of names) {
    const match = NAME.exec(name);
    if (!match) continue;
    const folder = join(output, name);
    const step = Number(match[1]);
    try {
      found.push({ folder, step, checkpoint: await checkedManifest(folder), damage: undefined });
    } catch (error) {
      found.push({ folder, step, checkpoint: undefined, damage: (error as Error).message });
    }
  }
  const age = (each: Listed): number => each.checkpoint?.saved ?? Number.POSITIVE_INFINITY;
  return found.sort((a, b) => (age(a) === age(b) ? b.step - a.step : age(b) - age(a)));
}

/** Removes all but the newest good checkpoints, and what ended processes have left unfinished. */
export async function pruneCheckpoints(output: string, damaged: ReadonlySet<string> = new Set()): Promise<void> {
  const listed = await listCheckpoints(output);
  const usable = listed.filter((each) => each.checkpoint && !damaged.has(each.folder));
  const replaced = (folder: string): boolean =>
    usable.some((each) => each.folder !== folder && folder.startsWith(`${each.folder}.`));
  const good = usable.filter((each) => !replaced(each.folder));
  const kept = new Set(good.slice(0, KEPT));
  if (kept.size > 0)
    for (const each of listed) if (!kept.has(each)) await rm(each.folder, { recursive: true, force: true });
  for (const name of await readdir(output)) {
    const match = UNFINISHED.exec(name);
    if (match && !runs(Number(match[1]))) await rm(join(output, name), { recursive: true, force: true });
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/**
 * The checkpoint to go on from: the newest good one in `output`, or the one in a folder.
 *
 * @returns it, and the newer ones that are damaged, each with its folder and what is wrong.
 * @throws CheckpointError when there is none that can be used: it names what there is and what is wrong with each.
 */
export async function findCheckpoint(
  resume: string | true,
  output: string | undefined,
): Promise<{ checkpoint: Checkpoint; damaged: Map<string, string> }> {
  const damaged = new Map<string, string>();
  if (resume !== true) {
    const found = await checkedManifest(resume).catch((cause) => {
      throw new CheckpointError(
        `train: ${resume} cannot be resumed from: ${(cause as Error).message}. Give the folder of a checkpoint (checkpoint-…), or resume: true for the newest good one in output.`,
        { cause },
      );
    });
    const damage = await damageOf(found);
    if (damage === undefined) return { checkpoint: found, damaged };
    throw new CheckpointError(
      `train: the checkpoint ${resume} is damaged: ${damage}. Resume from another one; resume: true takes the newest good one in output.`,
    );
  }
  for (const { folder, checkpoint, damage } of await listCheckpoints(output!)) {
    const wrong = checkpoint ? await damageOf(checkpoint) : damage;
    if (checkpoint && wrong === undefined) return { checkpoint, damaged };
    damaged.set(folder, wrong!);
  }
  const each = [...damaged].map(([folder, wrong]) => `\n${basename(folder)}: ${wrong}`).join("");
  throw new CheckpointError(
    damaged.size === 0
      ? `train: resume: true, but ${output} holds no checkpoint. Leave resume out to begin, or give the folder of a checkpoint.`
      : `train: resume: true, but every checkpoint in ${output} is damaged. Leave resume out to begin again.${each}`,
  );
}
