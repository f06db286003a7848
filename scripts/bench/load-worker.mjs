// One measurement of loading in a process of its own: node load-worker.mjs '{"folder": …, "device": "cuda", "repeats": 2, "quantize": {…} | null}'
import { readFileSync } from "node:fs";
import { loadModel } from "../../dist/src/plan.js";
import { resetPeak, settle, stats } from "../../dist/src/tensor/native.js";

const { folder, device, repeats, quantize, dtype = "bfloat16" } = JSON.parse(process.argv[2]);
const gibibytes = (bytes) => bytes / 2 ** 30;
const seconds = [];
let peak = 0;
let held = 0;
for (let i = 0; i < repeats; i++) {
  resetPeak();
  const begun = performance.now();
  const plan = loadModel(folder, { device, dtype, progress: false });
  const model = await (quantize ? plan.quantize(quantize) : plan);
  await settle();
  seconds.push((performance.now() - begun) / 1000);
  const s = stats(device);
  peak = Math.max(peak, s.peakBytes);
  held = s.liveBytes + s.cachedBytes;
  model.dispose();
}
// The most that was resident at once; pinned memory is not in it everywhere.
const status = readFileSync("/proc/self/status", "utf8");
const resident = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
const result = { seconds, peakGib: gibibytes(peak), heldGib: gibibytes(held), hostGib: gibibytes(resident) };
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
