import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import * as native from "../../src/tensor/native.js";

/** Numbers in [-1, 1), the same for the same seed. */
export function random(count: number, seed = 1): Float32Array {
  const x = new Float32Array(count);
  let s = Math.imul(seed, 2654435761) | 1;
  for (let i = 0; i < count; i++) {
    s = (Math.imul(s, 1664525) + 1013904223) | 0;
    x[i] = s / 2 ** 31;
  }
  return x;
}

/** A float32 (or int32, uint8) tensor on the device. */
export function send(data: Float32Array | Int32Array | Uint8Array): native.Handle {
  const dtype = data instanceof Float32Array ? 0 : data instanceof Int32Array ? 3 : 4;
  const handle = native.alloc(data.byteLength, dtype);
  native.upload(handle, data);
  return handle;
}

/** Reads a float32 tensor. */
export async function read(handle: native.Handle, count: number): Promise<Float32Array> {
  const out = new Float32Array(count);
  await native.download(handle, out);
  return out;
}

/** max|a - b| / max|b|. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`lengths ${a.length} and ${b.length} differ`);
  let difference = 0;
  let most = 0;
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs((a[i] as number) - (b[i] as number));
    if (!(d <= difference)) difference = d; // NaN stays
    most = Math.max(most, Math.abs(b[i] as number));
  }
  return most === 0 ? difference : difference / most;
}

/** Runs a compiled test program of this folder in its own process. */
export function child(
  program: string,
  environment: Record<string, string>,
  ...args: string[]
): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  const file = fileURLToPath(new URL(program, import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [file, ...args], {
    env: { ...process.env, ...environment },
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, signal, stdout, stderr };
}
