import promises, { type FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

/** What goes wrong at an operation of the disk. */
export type Fault =
  /** It fails with ENOSPC, this time only. */
  | "full once"
  /** It and all that follow fail with ENOSPC. */
  | "full from then on"
  /** A write takes half of the bytes and says so. */
  | "half written"
  /** A write takes half of the bytes and says that it took all. */
  | "half lost";

/** A disk that fails at one of its operations that change something: they are counted from 1. */
export class FaultyDisk implements Disposable {
  /** Operations so far. */
  operations = 0;
  /** Whether the fault has struck. */
  struck = false;
  private readonly at: number;
  private readonly fault: Fault;
  private readonly real = { ...promises };

  /** @param at the operation at which `fault` comes; Infinity: none does, they are only counted. */
  constructor(at: number, fault: Fault) {
    this.at = at;
    this.fault = fault;
    const { real } = this;
    const guarded =
      <A extends unknown[], R>(name: string, fn: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        this.strikes(name, false);
        return fn(...args);
      };
    promises.mkdir = guarded("mkdir", real.mkdir) as typeof promises.mkdir;
    promises.rename = guarded("rename", real.rename);
    promises.open = (async (path: string, flags?: string | number, mode?: number) => {
      if (flags !== undefined && flags !== "r") this.strikes("open", false);
      return this.handle(await real.open(path, flags, mode));
    }) as typeof promises.open;
    syncBuiltinESMExports();
  }

  /** Counts an operation; returns whether it is to be halved. */
  private strikes(name: string, writes: boolean): boolean {
    const now = ++this.operations;
    const halves = this.fault === "half written" || this.fault === "half lost";
    if (halves) {
      if (now !== this.at || !writes) return false;
      this.struck = true;
      return true;
    }
    if (now !== this.at && !(this.fault === "full from then on" && now > this.at)) return false;
    this.struck = true;
    throw Object.assign(new Error(`ENOSPC: no space left on device, ${name}`), { code: "ENOSPC", syscall: name });
  }

  private handle(file: FileHandle): FileHandle {
    const write = file.write.bind(file) as (
      b: Uint8Array,
      at: number,
      length: number,
    ) => Promise<{ bytesWritten: number }>;
    const writeFile = file.writeFile.bind(file);
    const sync = file.sync.bind(file);
    return Object.assign(file, {
      write: async (bytes: Uint8Array, at = 0, length = bytes.byteLength - at) => {
        if (!this.strikes("write", true)) return write(bytes, at, length);
        const { bytesWritten } = await write(bytes, at, length >> 1);
        return { bytesWritten: this.fault === "half lost" ? length : bytesWritten };
      },
      writeFile: async (data: string | Uint8Array) => {
        // The system's own calls below writeFile go on after a half write by themselves.
        if (!this.strikes("write", true) || this.fault === "half written") return writeFile(data);
        const bytes = Buffer.from(data as string);
        return writeFile(bytes.subarray(0, bytes.length >> 1));
      },
      sync: async () => {
        this.strikes("fsync", false);
        return sync();
      },
    });
  }

  [Symbol.dispose](): void {
    Object.assign(promises, this.real);
    syncBuiltinESMExports();
  }
}
