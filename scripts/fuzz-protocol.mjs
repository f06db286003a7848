// npm run fuzz:protocol [-- COUNT [SEED]]: a hundred thousand malformed, forged and replayed messages; none may be acted
// upon, and the heartbeat and kernel_info answer all along. Needs a build.
import { fuzz } from "../dist/test/kernel/fuzz.js";
import { startKernel, value } from "../dist/test/kernel/support.js";

const count = Number(process.argv[2] ?? 100_000);
const seed = Number(process.argv[3] ?? Date.now() % 1e9);
console.log(`seed ${seed}`);
const kernel = await startKernel();
try {
  const result = await fuzz(kernel, count, seed, (sent) => {
    if (sent % 20_000 === 0) console.log(`${sent} sent`);
  });
  console.log(`${result.sent} sent, ${result.acted} acted upon, ${result.missed} answers missed`);
  if (result.acted !== 0 || result.missed !== 0) throw new Error("see above");
  if ((await value(kernel.client, "1 + 1")) !== "2") throw new Error("the kernel does not run cells any more");
} catch (error) {
  console.error(`fuzz:protocol: ${error.message}`);
  process.exitCode = 1;
} finally {
  await kernel.stop();
}
