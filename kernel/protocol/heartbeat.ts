// The heartbeat echoes on a thread of its own: nothing that the kernel does can delay it.
import { parentPort, workerData } from "node:worker_threads";
import { Router } from "zeromq";

const socket = new Router({ linger: 0, sendHighWaterMark: 0 });
parentPort?.once("message", () => socket.close());
try {
  await socket.bind(workerData as string);
  parentPort?.postMessage({ bound: true });
  for await (const frames of socket) await socket.send(frames);
} catch (error) {
  if (!socket.closed) parentPort?.postMessage({ error: (error as Error).message });
}
