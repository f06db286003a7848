// A process that ends in one of several ways while the native runtime is open: see queue.test.ts.
import { Worker } from "node:worker_threads";
import { fill, gemm } from "../../src/tensor/calls.js";
import * as native from "../../src/tensor/native.js";
import { random, read, send } from "./helpers.js";

const how = process.argv[2];
const size = 512;
const a = send(random(size * size));
const y = native.alloc(size * size * 4, 0);

function work(count: number): void {
  for (let i = 0; i < count; i++) gemm(a, a, 0, y, size, size, size, 0, 0, size, size, size, 0, 1, 0);
}

if (how === "exit") {
  work(2000);
  void read(y, 4);
  process.exit(3);
} else if (how === "throw") {
  work(2000);
  void read(y, 4);
  throw new Error("on purpose");
} else if (how === "idle") {
  work(2000); // nobody reads: the process ends without it
} else if (how === "pending") {
  work(20);
  fill(y, 4, 2);
  void read(y, 1).then((v) => console.log(`read ${v[0]}`)); // keeps the process alive
} else if (how === "worker") {
  // A second thread is told clearly; the first one goes on.
  const worker = new Worker(
    `import(${JSON.stringify(new URL("../../src/tensor/native.js", import.meta.url).href)}).then(() => console.log("opened"), (e) => console.log(e.message))`,
    { eval: true },
  );
  worker.on("exit", async () => {
    fill(y, 4, 2);
    await read(y, 1);
  });
}

if (how === "limit") {
  // What is cached does not count: freed blocks of another size make room.
  const blocks = [native.alloc(5e6, 0), native.alloc(5e6, 0)];
  for (const b of blocks) native.free(b);
  const big = native.alloc(1e7, 0);
  try {
    native.alloc(1e7, 0);
  } catch (error) {
    console.log(String(error));
  }
  native.free(big);
  native.free(native.alloc(1.2e7, 0));
  console.log("fits again");
}
