// Programs of queue.test.ts that need a stand-in with other settings.
import { addon, alloc, read, run, type Stopped, send } from "./addon.js";

const how = process.argv[2];
addon.openDevice("cuda");
const x = send(new Float32Array(4), 1);

if (how === "interrupt") {
  const flag = new Int32Array(new SharedArrayBuffer(4));
  addon.setInterruptFlag(flag);
  for (let i = 0; i < 3000; i++) run("fill", [x], [4], [i]); // 6 seconds of work
  const settled = addon.settle(1).then(
    () => "resolved",
    (error: Stopped) => error.kind,
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  const began = performance.now();
  Atomics.store(flag, 0, 1);
  if ((await settled) !== "interrupted") throw new Error("it was not interrupted");
  Atomics.store(flag, 0, 0);
  addon.recover(1);
  run("fill", [x], [4], [3]);
  if ((await read(x, 4))[0] !== 3) throw new Error("it does not go on");
  console.log((performance.now() - began) / 1000);
} else if (how === "ahead") {
  for (let i = 0; i < 50; i++) run("fill", [x], [4], [i]);
  const early = read(x, 4);
  for (let i = 0; i < 50; i++) run("fill", [x], [4], [i]);
  if ((await early)[0] !== 49) throw new Error("the read is wrong");
  console.log(`${addon.stats(1).queued} ops ahead`);
} else if (how === "lost") {
  const told = (error: unknown): void => {
    const { code, device, message } = error as Stopped;
    console.log(`${code} ${device} ${message}`);
  };
  run("axpy", [x, x], [4], [1]);
  await read(x, 4).catch(told);
  addon.recover(1);
  for (const call of [
    () => alloc(16, 1),
    () => run("fill", [x], [4], [1]),
    () => addon.upload(x, new Float32Array(4), 0),
  ]) {
    try {
      call();
      console.log("it went on");
    } catch (error) {
      told(error);
    }
  }
  const y = alloc(16, 0);
  run("fill", [y], [4], [1]);
  if ((await read(y, 4))[0] !== 1) throw new Error("the CPU does not go on");
} else if (how === "exit") {
  for (let i = 0; i < 2000; i++) run("fill", [x], [4], [i]);
  void read(x, 4);
  process.exit(0);
} else if (how === "open") {
  console.log("opened");
}
