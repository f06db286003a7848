// npm run soak:kill [-- KILLS [SEED]]: kills a training run at 200 random moments, at least a tenth of them during a save, and lets it go on each time;
// adapters must equal that of the run nobody kills, bit for bit. Needs a build.
import { killAndResume } from "../dist/test/training/kill.js";

const kills = Number(process.argv[2] ?? 200);
const seed = Number(process.argv[3] ?? Date.now() % 1_000_000);
console.log(`seed ${seed}`);
try {
  const counts = await killAndResume(kills, seed, (text) => console.log(text));
  if (counts.duringSave * 10 < counts.kills)
    throw new Error(`only ${counts.duringSave} of ${counts.kills} kills came during a save`);
} catch (error) {
  console.error(`soak:kill: ${error.message}`);
  process.exitCode = 1;
}
