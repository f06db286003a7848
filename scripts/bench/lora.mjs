// One LoRA step (forward, backward, clipping, AdamW) beside transformers + PEFT: float32, bfloat16, and over NF4 with double quantisation.
import { join } from "node:path";
import { bin } from "../venv.mjs";
import { Contender, mebibytes, median, ratio, root, takeTurns, threads, warnIfBusy } from "./duel.mjs";
import { bestLimits, limits } from "./limits.mjs";
import { loraFlops, SHAPES } from "./shapes.mjs";

/** What both sides are asked for. `asked`: the ratio that the project wants. */
const CASES = [
  { name: "fp32", dtype: "float32" },
  { name: "bf16", dtype: "bfloat16", asked: 1.3, wanted: 2.5 },
  { name: "NF4 + double quantisation, bf16", dtype: "bfloat16", nf4: true, asked: 1.3, wanted: 2 },
];

/** Runs the cases whose name contains `filter`. */
export async function benchLora({ smoke, rounds, steps, filter = "" }) {
  const shapeName = smoke ? "smoke" : "SmolLM2-135M";
  const shape = SHAPES[shapeName];
  const size = { rank: 16, batch: smoke ? 2 : 4, length: smoke ? 64 : 256 };
  for (const each of CASES) {
    if (!each.name.toLowerCase().includes(filter.toLowerCase())) continue;
    const request = { ...size, model: shape, threads, dtype: each.dtype, total: 2 + rounds * steps + 1 };
    const own = each.nf4 ? { quantize: { type: "nf4", doubleQuant: true, compute: "bfloat16" } } : {};
    // The peer's config class knows rope_theta under its newer name.
    const { rope_theta, ...rest } = shape;
    const model = { ...rest, rope_parameters: { rope_type: "default", rope_theta } };
    const worker = join(root, "scripts", "bench", "lora-worker.mjs");
    const ours = new Contender("tunebook", process.execPath, [worker, JSON.stringify({ ...request, ...own })]);
    const theirs = new Contender("transformers + PEFT", bin("python"), [
      join(root, "scripts", "peers", "lora_step.py"),
      JSON.stringify({ ...request, model, nf4: each.nf4 ?? false }),
    ]);
    const machine = limits();
    await takeTurns([ours, theirs, machine], rounds, { steps }, { steps: 2 });
    report(each, `${shapeName} shape, r 16 all-linear, batch ${size.batch} x ${size.length}`, [ours, theirs], {
      tokens: size.batch * size.length,
      flops: loraFlops(shape, size),
      limit: bestLimits(machine),
    });
  }
}

function report(each, title, sides, { tokens, flops, limit }) {
  const [ours, theirs] = sides.map((side) => side.all("seconds"));
  console.log(`\nLoRA step, ${each.name}, ${title}, AdamW, ${threads} threads, ${ours.length} steps each in turns`);
  console.table(
    sides.map((side) => {
      const seconds = side.all("seconds");
      return {
        "": side.name,
        "best ms": Math.round(seconds[0] * 1000),
        "median ms": Math.round(median(seconds) * 1000),
        "tokens/s, best": Math.round(tokens / seconds[0]),
        "tokens/s, median": Math.round(tokens / median(seconds)),
        "GFLOP/s, best": Math.round((flops * 1e-9) / seconds[0]),
        "peak MiB": mebibytes(side.last.peakBytes),
        loss: Number(side.last.loss.toFixed(4)),
        trainable: side.trainable,
      };
    }),
  );
  const peak = each.dtype === "bfloat16" ? limit.bfloat16 : limit.float32;
  const share = Math.round(((flops * 1e-9) / ours[0] / peak) * 100);
  const wants = each.asked === undefined ? "" : ` (asked: ${each.asked}x, wanted: ${each.wanted}x)`;
  console.log(`ratio: ${ratio(ours, theirs)}${wants}`);
  console.log(
    `peak memory ${(sides[1].last.peakBytes / sides[0].last.peakBytes).toFixed(2)}x less; the best step is ${share}% of the own best product, ` +
      `JavaScript alone ${(100 * sides[0].last.javascript).toFixed(1)}% of it`,
  );
  console.log(limit.text);
  warnIfBusy([ours, theirs]);
}
