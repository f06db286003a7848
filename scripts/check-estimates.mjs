// node scripts/check-estimates.mjs [--device cuda] [PART…]: what `model.estimate` predicts from a config alone beside what two steps of training take,
// each case in a process of its own; of all cases, or of those whose name contains one of the parts. Fails above 10 %. Needs a build.
import { formatBytes } from "../dist/src/display/format.js";
import { table } from "../dist/src/display/table.js";
import { LARGE, measure, SMALL } from "../dist/test/training/measured.js";

const parts = process.argv.slice(2);
const at = parts.indexOf("--device");
const device = at < 0 ? "cpu" : parts.splice(at, 2)[1];
// The stand-in for a GPU has a GPU's tensors, and none of its working memory.
const standIn = device === "cuda" && process.env.TUNEBOOK_FAKE_CUDA === "1";
const rows = [];
let worst = 0;
for (const one of [...SMALL, ...LARGE]) {
  const { batch, length, accumulate = 1, checkpointing, optimizer } = one.options;
  const title = `${one.model}: ${one.name}`;
  if (parts.length > 0 && !parts.some((part) => title.includes(part))) continue;
  const { predicted: peak, measured, beside, working, resident } = await measure({ ...one, device });
  const predicted = standIn ? peak - working : peak;
  const error = predicted / measured - 1;
  worst = Math.max(worst, Math.abs(error));
  rows.push([
    title,
    `${batch} x ${length}${accumulate > 1 ? ` x ${accumulate}` : ""}`,
    checkpointing,
    optimizer,
    ...[predicted, measured].map(formatBytes),
    `${(100 * error).toFixed(1)}%`,
    ...[predicted + beside, resident].map(formatBytes),
  ]);
  process.stderr.write(`${title}: ${formatBytes(predicted)} predicted, ${formatBytes(measured)} measured\n`);
}
const columns = ["step", "tokens", "checkpointing", "optimizer", "predicted", "measured", "error"];
const shown = table([...columns, "with working memory", "process grew by"], rows, {
  title: `Peak of a step on ${device}: predicted from the config, and measured`,
  maxTextCell: 80,
  align: Object.fromEntries(
    ["predicted", "measured", "error", "with working memory", "process grew by"].map((c) => [c, "right"]),
  ),
});
console.log(shown.toText());
if (!(worst < 0.1)) {
  console.error(`check-estimates: the largest error is ${(100 * worst).toFixed(1)}%, above 10%.`);
  process.exitCode = 1;
}
