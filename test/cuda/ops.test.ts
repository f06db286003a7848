// Every native op on the GPU against the CPU backend: all cases of test/cuda/cases-*.ts.
//   TUNEBOOK_CASES=gemm,norm     only those of files whose names contain one of these
//   TUNEBOOK_LARGEST=65536       only those whose tensors have at most so many elements, for compute-sanitizer
//   TUNEBOOK_REPORT=file.json    writes the worst errors
//   TUNEBOOK_REFERENCE=all       compares 16-bit results with float64 too, not with the CPU's alone
import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cudaFailure, openDevice, opNames } from "../../src/tensor/native.js";
import type { CaseDType, OpCase } from "./case.js";
import { runCase, TOLERANCE } from "./run-case.js";

/** The worst case of an op in a dtype. */
interface Row {
  op: string;
  dtype: CaseDType;
  cases: number;
  error: number;
  tolerance: number;
  worst: string;
  reference?: { gpu: number; cpu: number };
}

const here = fileURLToPath(new URL(".", import.meta.url));
const rows = new Map<string, Row>();
const missing = cudaFailure();
const only = process.env.TUNEBOOK_CASES?.split(",");
const largest = Number(process.env.TUNEBOOK_LARGEST ?? Number.POSITIVE_INFINITY);

function enter(c: OpCase, dtype: CaseDType, error: number, reference?: { gpu: number; cpu: number }): void {
  const key = `${c.op} ${dtype}`;
  const tolerance = c.tolerance?.[dtype] ?? TOLERANCE[dtype];
  const row = rows.get(key) ?? { op: c.op, dtype, cases: 0, error: -1, tolerance, worst: c.name };
  row.cases++;
  if (error > row.error) Object.assign(row, { error, tolerance, worst: c.name });
  if (reference && !(row.reference && row.reference.gpu >= reference.gpu)) row.reference = reference;
  rows.set(key, row);
}

async function check(c: OpCase): Promise<void> {
  const some = c.tensors.flat().some((t) => t?.act);
  for (const dtype of c.dtypes ?? (some ? (["float32", "bfloat16", "float16"] as const) : (["float32"] as const))) {
    const tolerance = c.tolerance?.[dtype] ?? TOLERANCE[dtype];
    const { error, worst, reference, unequal } = await runCase(c, dtype);
    enter(c, dtype, error, reference);
    const where = `${c.name}, ${dtype}`;
    assert.equal(unequal, undefined, `${where}: bytes differ`);
    assert.ok(
      error <= tolerance,
      `${where}: tensor ${worst} is off by ${error.toExponential(1)}, allowed is ${tolerance}`,
    );
    if (reference)
      assert.ok(
        reference.gpu <= tolerance,
        `${where}: off by ${reference.gpu.toExponential(1)} from float64 (the CPU by ${reference.cpu.toExponential(1)})`,
      );
  }
}

if (missing !== undefined) {
  test("ops on the GPU", { skip: `no CUDA device: ${missing}` }, () => {});
} else {
  const files = readdirSync(here).filter(
    (f) => /^cases-[a-z0-9-]+\.js$/.test(f) && (!only || only.some((part) => f.includes(part))),
  );
  const all: OpCase[] = [];
  for (const file of files.sort())
    all.push(...((await import(new URL(file, import.meta.url).href)) as { cases: OpCase[] }).cases.filter(small));
  for (const op of new Set(all.map((c) => c.op))) {
    const mine = all.filter((c) => c.op === op);
    test(`${op}: ${mine.length} cases`, async () => {
      const failures: Error[] = [];
      for (const c of mine) await check(c).catch((error: Error) => failures.push(error));
      if (failures.length > 0) throw new Error(failures.map((f) => f.message).join("\n"));
    });
  }
  after(() => report(files));
}

function small(c: OpCase): boolean {
  return c.tensors.flat().every((t) => !t || t.shape.reduce((a, b) => a * b, 1) <= largest);
}

/** Which ops have no case; the worst errors as a table and, where asked for, as a file. */
function report(files: readonly string[]): void {
  const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase());
  const seen = new Set([...rows.values()].map((r) => r.op));
  const without = opNames.map(camel).filter((name) => !seen.has(name));
  const table = [...rows.values()].sort((a, b) => a.op.localeCompare(b.op) || a.dtype.localeCompare(b.dtype));
  console.log(`${openDevice().name}: ${table.reduce((n, r) => n + r.cases, 0)} comparisons of ${files.join(", ")}`);
  for (const r of table) {
    const exact = r.reference
      ? `  float64: ${r.reference.gpu.toExponential(1)} (CPU ${r.reference.cpu.toExponential(1)})`
      : "";
    console.log(
      `${r.op.padEnd(24)} ${r.dtype.padEnd(9)} ${r.error.toExponential(1).padStart(8)} of ${r.tolerance}  ${r.worst}${exact}`,
    );
  }
  if (without.length > 0) console.log(`without a case: ${without.join(", ")}`);
  const to = process.env.TUNEBOOK_REPORT;
  if (to) writeFileSync(to, `${JSON.stringify({ device: openDevice(), rows: table, without }, null, 2)}\n`);
}
