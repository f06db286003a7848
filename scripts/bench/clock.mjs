// Seconds, as the workers of tunebook's own side count them.
import { stats } from "../../dist/src/tensor/native.js";

const alone = stats().threads === 1;
const pause = new Int32Array(new SharedArrayBuffer(4));

/** How long a measured stretch should be: the processor's own time is counted in steps of a few milliseconds. */
export const STRETCH = alone ? 0.01 : 0.002;

/** Seconds: the processor's own with one thread, which other programs hardly disturb. They are told exactly once the thread that worked sleeps. */
export function clock() {
  if (!alone) return performance.now() / 1000;
  Atomics.wait(pause, 0, 0, 1);
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
