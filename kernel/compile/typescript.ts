import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { cachedDataVersionTag } from "node:v8";
import { Script } from "node:vm";
import type typescript from "typescript";

const require = createRequire(import.meta.url);
const file = require.resolve("typescript");
const source = readFileSync(file, "utf8");
const cache = cachePath();
const cachedData = cache === undefined ? undefined : readOwn(cache);
const script = new Script(`(function(module,exports,require,__filename,__dirname){${source}\n})`, {
  filename: file,
  ...(cachedData === undefined ? {} : { cachedData }),
});
const fresh = cachedData === undefined || script.cachedDataRejected === true;

/** TypeScript, loaded through a code cache of V8's (170 ms without it, about 40 with it). Heavy: only the compile worker imports this file. */
export const ts: typeof typescript = load();

/** The folder of TypeScript's own `lib.*.d.ts` files. */
export const libFolder: string = dirname(file);

function load(): typeof typescript {
  const module = { exports: {} };
  script.runInThisContext().call(module.exports, module, module.exports, createRequire(file), file, dirname(file));
  return module.exports as typeof typescript;
}

/** Writes the code cache if there was none: called once the functions that cells need have run, so that they are in it. */
export function saveCodeCache(): void {
  if (!fresh || cache === undefined) return;
  try {
    const part = `${cache}.${process.pid}`;
    writeFileSync(part, script.createCachedData(), { mode: 0o600, flag: "wx" });
    renameSync(part, cache);
  } catch {
    // A cache that cannot be written only costs time.
  }
}

/** A file that only this user can write: its bytes become code. */
function cachePath(): string | undefined {
  if (process.env.TUNEBOOK_CODE_CACHE === "off") return undefined;
  try {
    const base = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
    const folder = join(base, "tunebook", "code");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (!owned(folder)) return undefined;
    chmodSync(folder, 0o700);
    const key = createHash("sha256")
      .update(`${cachedDataVersionTag()} ${process.arch} ${file}\0`)
      .update(source)
      .digest("hex");
    return join(folder, `typescript-${key.slice(0, 24)}`);
  } catch {
    return undefined;
  }
}

function readOwn(path: string): Buffer | undefined {
  try {
    return owned(path) ? readFileSync(path) : undefined;
  } catch {
    return undefined;
  }
}

function owned(path: string): boolean {
  const { uid, mode } = statSync(path);
  return process.getuid === undefined || (uid === process.getuid() && (mode & 0o022) === 0);
}
