// npm run soak [-- CELLS]: a thousand cells of every kind in one kernel; then memory has grown by 60 MB at most and the
// number of open files is the same. Needs a build and Linux' /proc.
import { soak } from "../dist/test/kernel/soak.js";
import { startKernel } from "../dist/test/kernel/support.js";

const MOST_MB = 60;
const cells = Number(process.argv[2] ?? 1000);
const kernel = await startKernel();
try {
  const tell = ({ cells, memory, files }) =>
    console.log(`${cells} cells: ${memory.toFixed(0)} MB, ${files} open files`);
  // What is loaded at the first cell of a kind is no growth.
  await soak(kernel, 24, 24, tell);
  const notes = await soak(kernel, cells, Math.max(1, Math.floor(cells / 10)), tell);
  const [first, last] = [notes[0], notes.at(-1)];
  const grown = last.memory - first.memory;
  console.log(`memory has grown by ${grown.toFixed(0)} MB, open files by ${last.files - first.files}`);
  if (grown > MOST_MB) throw new Error(`memory has grown by more than ${MOST_MB} MB`);
  if (last.files !== first.files) throw new Error("the number of open files has changed");
} catch (error) {
  console.error(`soak: ${error.message}`);
  process.exitCode = 1;
} finally {
  await kernel.stop();
}
