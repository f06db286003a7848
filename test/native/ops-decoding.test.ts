import assert from "node:assert/strict";
import { test } from "node:test";
import * as op from "../../src/tensor/calls.js";
import { alloc, download, free, type Handle, upload } from "../../src/tensor/native.js";
import { FLOAT32, f32, fails, i32, Numbers, out, read, readInts } from "./ops-harness.js";

const UINT8 = 4;

test("cache_append writes each row to its place, and rows without one nowhere", async () => {
  const [rows, width, places] = [4, 5, 7];
  const k = Array.from({ length: rows * width }, (_, i) => i + 1);
  const v = k.map((x) => -x);
  const [keys, values] = [out(places * width), out(places * width)];
  op.fill(keys, places * width, 100);
  op.fill(values, places * width, 200);
  op.cacheAppend(f32(k), f32(v), i32([6, -1, 0, 3]), keys, values, rows, width, places);
  const want = (from: number[], other: number): number[] =>
    Array.from({ length: places * width }, (_, i) => {
      const row = new Map([[6, 0], [0, 2], [3, 3]]).get(Math.floor(i / width)); // biome-ignore format: pairs
      return row === undefined ? other : from[row * width + (i % width)]!;
    });
  assert.deepEqual([...(await read(keys, places * width))], want(k, 100));
  assert.deepEqual([...(await read(values, places * width))], want(v, 200));
  await fails(
    () => op.cacheAppend(f32(k), f32(v), i32([0, 1, 7, 2]), keys, values, rows, width, places),
    /place 7 in row 2, but the cache has 7/,
  );
  await fails(() => op.cacheAppend(f32(k), f32(v), i32([0]), keys, values, rows, width, places), /slots holds 1/);
});

/** max |x| and codes x · 127 / max to nearest, ties to even, in float32. */
function codesOf(x: readonly number[]): { absmax: number; codes: number[] } {
  const absmax = Math.fround(x.reduce((most, v) => Math.max(most, Math.abs(v)), 0));
  const scale = absmax === 0 ? 0 : Math.fround(127 / absmax);
  const even = (y: number): number => {
    const low = Math.floor(y);
    return y - low > 0.5 || (y - low === 0.5 && low % 2 !== 0) ? low + 1 : low;
  };
  return { absmax, codes: x.map((v) => even(Math.fround(Math.fround(v) * scale))) };
}

const bytesOf = async (handle: Handle, n: number): Promise<number[]> => {
  const to = new Uint8Array(n);
  await download(handle, to);
  return [...new Int8Array(to.buffer)];
};

test("cache_append_8 writes codes and a scale for each head, and leaves other places alone", async () => {
  const [rows, heads, dim, places] = [4, 3, 21, 6];
  const numbers = new Numbers(11);
  const k = [...numbers.array(rows * heads * dim)];
  const v = [...numbers.array(rows * heads * dim)].map((x) => x * 1e-3);
  k.fill(0, 0, dim);
  const slots = [5, -1, 0, 2];
  const size = places * heads * dim;
  const [keys, values] = [alloc(size, UINT8), alloc(size, UINT8)];
  upload(keys, new Uint8Array(size).fill(7));
  upload(values, new Uint8Array(size).fill(7));
  const [a, b] = [out(places * heads), out(places * heads)];
  op.fill(a, places * heads, -1);
  op.fill(b, places * heads, -1);
  op.cacheAppend8(f32(k), f32(v), i32(slots), keys, values, a, b, rows, heads, dim, places);
  for (const [from, codes, absmax] of [
    [k, await bytesOf(keys, size), [...(await read(a, places * heads))]],
    [v, await bytesOf(values, size), [...(await read(b, places * heads))]],
  ] as const)
    for (let place = 0; place < places; place++)
      for (let h = 0; h < heads; h++) {
        const row = slots.indexOf(place);
        const at = place * heads + h;
        const mine = codes.slice(at * dim, (at + 1) * dim);
        const want = row < 0 ? undefined : codesOf(from.slice((row * heads + h) * dim, (row * heads + h + 1) * dim));
        assert.equal(absmax[at], want?.absmax ?? -1);
        assert.deepEqual(mine, want?.codes ?? new Array(dim).fill(7));
      }
  await fails(
    () => op.cacheAppend8(f32(k), f32(v), i32([0, 1, 6, 2]), keys, values, a, b, rows, heads, dim, places),
    /place 6 in row 2, but the cache has 6/,
  );
  for (const handle of [keys, values]) free(handle);
});

test("attention_cached is attention over what the cache restores: 16 and 8 bits, several queries, pieces, windows", async () => {
  for (const [heads, kvHeads, dim, window, lengths] of [
    [4, 2, 16, 0, [5, 1200, 37]],
    [3, 1, 33, 0, [1, 700]],
    [8, 8, 64, 50, [513, 40, 3]],
  ] as const) {
    const sequences = lengths.length;
    const queries = lengths.map((length, i) => Math.min(length, 1 + (i % 3)));
    const qRows = queries.reduce((n, q) => n + q, 1); // a row that belongs to nobody
    const room = Math.max(...lengths);
    const kRows = sequences * room;
    const numbers = new Numbers(5);
    const [q, k, v] = [qRows * heads, kRows * kvHeads, kRows * kvHeads].map((n) => [...numbers.array(n * dim)]);
    const begins = queries.map((_, i) => queries.slice(0, i).reduce((n, x) => n + x, 0));
    const ranges = [begins, queries, lengths.map((_, i) => i * room), [...lengths]].map((r) => i32(r as number[]));
    const scale = 1 / Math.sqrt(dim);
    for (const kind of ["float32", "bfloat16", "float16", "int8"] as const) {
      const size = kRows * kvHeads * dim;
      const restored: number[] = [f32(k!), f32(v!)];
      const handles: number[] = [...restored];
      const absmax = [0, 0];
      if (kind === "int8") {
        for (const i of [0, 1]) {
          handles[i] = alloc(size, UINT8);
          absmax[i] = alloc(kRows * kvHeads * 4, FLOAT32);
          op.quantizeInt8(restored[i]!, handles[i]!, absmax[i]!, kRows * kvHeads, dim);
          restored[i] = out(size);
          op.dequantizeInt8(handles[i]!, absmax[i]!, restored[i]!, kRows * kvHeads, dim);
        }
      } else if (kind !== "float32") {
        for (const i of [0, 1]) {
          handles[i] = alloc(size * 2, kind === "bfloat16" ? 1 : 2);
          op.copy(restored[i]!, handles[i]!, size);
          restored[i] = out(size);
          op.copy(handles[i]!, restored[i]!, size);
        }
      }
      const [o, want, lse] = [out(qRows * heads * dim), out(qRows * heads * dim), out(qRows * heads)];
      const [rb, rl, kb, kl] = ranges as [number, number, number, number];
      op.attentionCached(
        f32(q!),
        handles[0]!,
        handles[1]!,
        absmax[0]!,
        absmax[1]!,
        rb,
        rl,
        kb,
        kl,
        o,
        sequences,
        qRows,
        kRows,
        heads,
        kvHeads,
        dim,
        window,
        scale,
      );
      const [qs, ks] = [heads * dim, kvHeads * dim];
      op.attention(
        f32(q!),
        restored[0]!,
        restored[1]!,
        rb,
        rl,
        kb,
        kl,
        want,
        lse,
        sequences,
        qRows,
        kRows,
        heads,
        kvHeads,
        dim,
        qs,
        ks,
        ks,
        qs,
        1,
        window,
        0,
        scale,
        0,
      );
      const [got, expected] = [await read(o, qRows * heads * dim), await read(want, qRows * heads * dim)];
      const most = expected.reduce((n, x) => Math.max(n, Math.abs(x)), 0);
      got.forEach(
        (x, i) => void assert.ok(Math.abs(x - expected[i]!) <= 2e-6 * most, `${kind} ${i}: ${x} ${expected[i]}`),
      );
      assert.ok(most > 0.01);
      if (kind !== "float32") for (const handle of handles) free(handle);
      for (const handle of absmax) if (handle !== 0) free(handle);
    }
  }
  const ranges = [[0], [1], [0], [9]].map((r) => i32(r)) as [number, number, number, number];
  const x = f32(new Array(64).fill(1));
  await fails(
    () => op.attentionCached(x, x, x, 0, 0, ...ranges, out(8), 1, 1, 8, 1, 1, 8, 0, 1),
    /key rows 0..9 are outside the 8 rows/,
  );
  const codes = alloc(64, UINT8);
  const one = [[0], [1], [0], [1]].map((r) => i32(r)) as [number, number, number, number];
  await fails(() => op.attentionCached(x, codes, codes, 0, 0, ...one, out(8), 1, 1, 8, 1, 1, 8, 0, 1), /key_absmax/);
  free(codes);
});

test("decode_advance goes on with the tokens chosen, stops at the limit, and leaves rows without a place alone", async () => {
  const chosen = i32([50, 51, 52]);
  const [ids, positions, lengths, slots] = [i32([1, 2, 3]), i32([4, 6, 2]), i32([5, 7, 3]), i32([4, 14, -1])];
  const draws = i32([9, 0, 9, 5, 9, 7]);
  const seen = i32(new Array(24).fill(-1));
  op.decodeAdvance(chosen, ids, positions, lengths, slots, draws, seen, 3, 7, 8);
  assert.deepEqual([...(await readInts(ids, 3))], [50, 51, 3]);
  assert.deepEqual([...(await readInts(positions, 3))], [5, 6, 2]);
  assert.deepEqual([...(await readInts(lengths, 3))], [6, 7, 3]);
  assert.deepEqual([...(await readInts(slots, 3))], [5, -1, -1]);
  assert.deepEqual([...(await readInts(draws, 6))], [9, 1, 9, 6, 9, 7]);
  const marks = [...(await readInts(seen, 24))].flatMap((id, i) => (id === -1 ? [] : [[i, id]]));
  assert.deepEqual(marks, [
    [5, 50],
    [15, 51],
  ]);
  op.decodeAdvance(chosen, ids, positions, lengths, slots, 0, 0, 3, 7, 0);
  assert.deepEqual([...(await readInts(positions, 3))], [6, 6, 2]);
});

test("sample with a draw for each row is sample of that row by itself", async () => {
  const [rows, vocab] = [6, 300];
  const numbers = new Numbers(3);
  const logits = Array.from({ length: rows }, () => [...numbers.array(vocab)]);
  const draws = Array.from({ length: rows }, (_, r) => [r * 1000 - 7, r * 3]);
  const ids = i32(new Array(rows).fill(-1));
  op.sample(f32(logits.flat()), i32(draws.flat()), ids, rows, vocab, 50, 1, 1, 1.5, 0.95, 0);
  const together = [...(await readInts(ids, rows))];
  for (let r = 0; r < rows; r++) {
    const one = i32([-1]);
    op.sample(f32(logits[r]!), 0, one, 1, vocab, 50, draws[r]![0]!, draws[r]![1]!, 1.5, 0.95, 0);
    assert.equal((await readInts(one, 1))[0], together[r]);
  }
  assert.ok(new Set(together).size > 1);
});
