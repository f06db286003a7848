import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import type { TestContext } from "node:test";
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

/** What a case of products computed, and its relative error. */
export interface Outcome {
  readonly name: string;
  readonly error: number;
  readonly values: Float32Array;
}

/** One whose bound depends on what is compared. */
export interface Bounded extends Outcome {
  readonly bound: number;
}

interface Printed {
  isa: string;
  threads: number;
  liveBytes: number;
  name: string;
  error: number;
  bound: number;
  digest: string;
}

/** What a program of products prints: a line of JSON with the instruction set, the worst case and a digest of all results. */
export function printProducts(outcomes: readonly Bounded[]): void {
  const digest = createHash("sha256");
  for (const o of outcomes) digest.update(new Uint8Array(o.values.buffer));
  const bad = (o: Bounded): number => (Number.isNaN(o.error) ? Number.POSITIVE_INFINITY : o.error / o.bound);
  const { name, error, bound } = outcomes.reduce((p, o) => (bad(o) > bad(p) ? o : p));
  const { isa, threads, liveBytes } = native.stats();
  const printed: Printed = { isa, threads, liveBytes, name, error, bound, digest: digest.digest("hex") };
  console.log(JSON.stringify(printed));
}

/**
 * Runs such a program on every instruction set that this processor has, with each number of threads: results must be within their bound, leave no memory
 * behind, and not depend on the number of threads.
 */
export function onEveryInstructionSet(t: TestContext, program: string, threadCounts: readonly number[]): void {
  for (const isa of ["portable", "avx2", "avx512", "avx512bf16"]) {
    const digests = new Set<string>();
    for (const threads of threadCounts) {
      const run = child(program, { TUNEBOOK_ISA: isa, TUNEBOOK_THREADS: String(threads) });
      if (/this processor cannot run/.test(run.stderr)) {
        t.diagnostic(`${isa}: not on this processor`);
        break;
      }
      assert.equal(run.status, 0, run.stderr);
      const result = JSON.parse(run.stdout) as Printed;
      assert.equal(result.isa, isa);
      assert.equal(result.threads, threads);
      assert.equal(result.liveBytes, 0);
      assert.equal(typeof result.error, "number", `${isa}: ${result.name}: no number`); // JSON has null for NaN
      assert.ok(result.error < result.bound, `${isa}: ${result.name}: relative error ${result.error}`);
      digests.add(result.digest);
    }
    assert.ok(digests.size <= 1, `${isa}: results differ with the number of threads`);
  }
}
