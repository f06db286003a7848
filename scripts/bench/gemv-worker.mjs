// tunebook's side of gemv.mjs: one row times every weight of many layers, as a token of decoding does.
//   argv: {kind, matrices: [[outputs, inputs], …] of one layer, bytes: how much memory the layers should fill}. A request is {seconds}, the reply
//   {seconds: best of all layers once}.
import { createInterface } from "node:readline";
import {
  copy,
  gemm,
  gemmBlocks,
  gemmInt8,
  gemmNf4,
  quantizeAbsmax,
  quantizeInt8,
  quantizeNf4,
  randomNormal,
} from "../../dist/src/tensor/calls.js";
import { alloc, free, sync, upload } from "../../dist/src/tensor/native.js";

const { kind, matrices, bytes: wanted } = JSON.parse(process.argv[2]);
const [FLOAT32, BFLOAT16, FLOAT16, UINT8] = [0, 1, 2, 4];
const BLOCK = 64;
const most = Math.max(...matrices.flat());
const x = alloc(most * 4, FLOAT32);
const y = alloc(most * 4, FLOAT32);
randomNormal(x, most, 1, 0, 0, 1);

/** A weight's product and its bytes, by kind. `dense`: its numbers. */
const MAKERS = {
  nf4(dense, n, k) {
    const size = n * k;
    const blocks = size / BLOCK;
    const [q, absmax, codes] = [alloc(size / 2, UINT8), alloc(blocks * 4, FLOAT32), alloc(blocks, UINT8)];
    const [absmax2, offset] = [alloc(Math.ceil(blocks / 256) * 4, FLOAT32), alloc(4, FLOAT32)];
    quantizeNf4(dense, q, absmax, size, BLOCK, 0);
    quantizeAbsmax(absmax, codes, absmax2, offset, blocks);
    free(absmax);
    const go = () => gemmNf4(x, q, codes, absmax2, offset, 0, y, 1, n, k, 1, BLOCK, k, n, 0, 1, 1, 0);
    return [go, size / 2 + blocks + blocks / 64];
  },
  q4_1: (_, n, k) => blocks(n, k, 4),
  q8_0: (_, n, k) => blocks(n, k, 8),
  int8(dense, n, k) {
    const [q, absmax] = [alloc(n * k, UINT8), alloc(n * 4, FLOAT32)];
    quantizeInt8(dense, q, absmax, n, k);
    return [() => gemmInt8(x, q, absmax, 0, y, 1, n, k, 1, k, n, 1, 1, 0), n * k + n * 4];
  },
  bfloat16(dense, n, k) {
    const w = alloc(n * k * 2, BFLOAT16);
    copy(dense, w, n * k);
    return [() => gemm(x, w, 0, y, 1, n, k, 0, 1, k, k, n, 1, 1, 0), n * k * 2];
  },
};

function blocks(n, k, bits) {
  const size = n * k;
  const q = alloc((size * bits) / 8, UINT8);
  upload(
    q,
    Uint8Array.from({ length: (size * bits) / 8 }, (_, i) => (i * 2654435761) >>> 13),
  );
  const half = () => {
    const h = alloc(size / 16, FLOAT16);
    upload(h, new Uint16Array(size / 32).fill(0x1c00));
    return h;
  };
  const [scale, minimum] = [half(), bits === 4 ? half() : 0];
  const go = () => gemmBlocks(x, q, scale, minimum, 0, y, 1, n, k, 1, k, n, bits, 1, 1, 0);
  return [go, (size * bits) / 8 + (size / 16) * (bits === 4 ? 2 : 1)];
}

const products = [];
let total = 0;
const largest = Math.max(...matrices.map(([n, k]) => n * k));
const dense = alloc(largest * 4, FLOAT32);
randomNormal(dense, largest, 2, 0, 0, 0.02);
while (total < wanted) {
  for (const [n, k] of matrices) {
    const [go, size] = MAKERS[kind](dense, n, k);
    products.push(go);
    total += size;
  }
}
sync();
free(dense);

const reply = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
reply({ ready: true, bytes: total });
for await (const line of createInterface({ input: process.stdin })) {
  const end = performance.now() + JSON.parse(line).seconds * 1000;
  let best = Number.POSITIVE_INFINITY;
  do {
    const begun = performance.now();
    for (const go of products) go();
    sync();
    best = Math.min(best, (performance.now() - begun) / 1000);
  } while (performance.now() < end);
  reply({ seconds: best });
}
