// Loss curves of one training run done in several ways: by default SmolLM2-135M with LoRA (every linear layer) on packed DialogSum rows. Each way runs in a
// process of its own (curve-worker.mjs), from the same seed on the same rows, so that step N of all of them is the same work. What may differ between
// two ways is arithmetic alone: dtypes, kernels, what is recomputed.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { plot } from "../../dist/src/index.js";
import { DIALOGSUM, requireFiles, SMOLLM2 } from "../shared.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs one way of training and gives { name, losses, seconds, last } (`last`: the worker's closing line).
 * @param way { name, load: options of loadModel, quantize?: options of quantize, train?: options of train beyond those of `work`, env? }
 * @param work { steps, batch, maxLength, rank, lr, rows } of all ways, and perhaps { files: { model, rows, held? }, longest: characters of a dialogue,
 *   held: how many rows to measure on before and after, seed, adapterSeed }.
 * @param onStep Called with each step { step, loss, gradNorm, seconds }.
 */
export function runCurve(way, work, onStep = () => {}) {
  const files = work.files ?? { model: SMOLLM2, rows: DIALOGSUM };
  requireFiles(Object.values(files));
  const request = JSON.stringify({ ...work, ...way, files });
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, "scripts/bench/curve-worker.mjs"), request], {
      cwd: root,
      env: { ...process.env, ...way.env },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const steps = [];
    let last;
    let rest = "";
    child.stdout.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      for (const line of lines.filter((l) => l.startsWith("{"))) {
        const message = JSON.parse(line);
        if (message.step === undefined) last = message;
        else {
          steps.push(message);
          onStep(message);
        }
      }
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code !== 0 || !last) return reject(new Error(`the run "${way.name}" ended with code ${code}`));
      const losses = steps.map((s) => s.loss);
      resolve({ name: way.name, losses, seconds: last.seconds, last });
    });
  });
}

/** Means over consecutive windows of `size` steps; a rest that is shorter counts as one too. */
export function windowMeans(losses, size = 50) {
  const means = [];
  for (let i = 0; i < losses.length; i += size) {
    const part = losses.slice(i, i + size);
    means.push(part.reduce((a, b) => a + b, 0) / part.length);
  }
  return means;
}

/** Windows of a curve beside the reference's: [{ from, to, reference, loss, difference }], the difference as a share of the reference. */
export function compareCurves(reference, curve, size = 50) {
  const ours = windowMeans(curve.losses, size);
  return windowMeans(reference.losses, size).map((mean, i) => ({
    from: i * size + 1,
    to: Math.min((i + 1) * size, reference.losses.length),
    reference: mean,
    loss: ours[i],
    difference: ours[i] / mean - 1,
  }));
}

/** The largest difference of all windows, without its sign. */
export const largestDifference = (windows) => Math.max(...windows.map((w) => Math.abs(w.difference)));

// A point is the mean of the steps up to it, at most `size`: single steps of other rows differ too much to see anything.
function smooth(losses, size) {
  let sum = 0;
  return losses.map((loss, i) => {
    sum += loss - (i >= size ? losses[i - size] : 0);
    return sum / Math.min(i + 1, size);
  });
}

/** Curves as one figure of running means over `size` steps. */
export function plotCurves(curves, title, size = 20) {
  const rows = curves.flatMap(({ name, losses }) =>
    smooth(losses, size).map((loss, i) => ({ step: i + 1, loss, run: name })),
  );
  return plot.line(rows, { x: "step", y: "loss", series: "run", title, yLabel: "loss, nats a token", markers: false });
}

/** How far curves are from their references, [name, reference, curve][], in per cent of running means over `size` steps: where curves lie on each other. */
export function plotDifferences(pairs, title, size = 20) {
  const rows = pairs.flatMap(([name, reference, curve]) => {
    const means = smooth(reference.losses, size);
    return smooth(curve.losses, size).map((loss, i) => ({
      step: i + 1,
      difference: 100 * (loss / means[i] - 1),
      run: name,
    }));
  });
  return plot.line(rows, { x: "step", y: "difference", series: "run", title, yLabel: "difference, %", markers: false });
}
