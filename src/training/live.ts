import { publisher } from "../display/host.js";
import { LiveDisplay } from "../display/live.js";
import { ProgressBar } from "../display/progress.js";
import { type Table, table } from "../display/table.js";
import { line, type Plot } from "../plot/index.js";
import type { RunPlan } from "./loop.js";
import type { TrainStep } from "./options.js";
import type { TrainResult } from "./run.js";

/** Rows of the growing table: as many of the newest as a screen takes. */
const SHOWN_ROWS = 12;

/** Training loss of every step and validation loss where it was measured, over the steps. */
export function lossPlot(steps: readonly TrainStep[]): Plot {
  const rows: { step: number; loss: number; series: string }[] = steps.map((s) => ({
    step: s.step,
    loss: s.loss,
    series: "training",
  }));
  for (const s of steps)
    if (s.validationLoss !== undefined) rows.push({ step: s.step, loss: s.validationLoss, series: "validation" });
  return line(rows, { x: "step", y: "loss", series: "series", title: "Loss", xLabel: "step", yLabel: "nats a token" });
}

/** Step | Training Loss | Validation Loss: the measurements, or the newest steps where nothing is measured. */
export function stepsTable(steps: readonly TrainStep[]): Table {
  const measured = steps.filter((s) => s.validationLoss !== undefined);
  if (measured.length > 0) {
    return table(
      ["Step", "Training Loss", "Validation Loss"],
      measured.map((s) => [s.step, meanLossUpTo(steps, s.step), s.validationLoss]),
    );
  }
  return table(
    ["Step", "Training Loss"],
    steps.slice(-SHOWN_ROWS).map((s) => [s.step, s.loss]),
  );
}

/** Mean training loss since the measurement before: steadier than a single step's. */
function meanLossUpTo(steps: readonly TrainStep[], step: number): number {
  const last = steps.findIndex((s) => s.step === step);
  let first = last;
  while (first > 0 && steps[first - 1]!.validationLoss === undefined) first--;
  const part = steps.slice(first, last + 1);
  return part.reduce((n, s) => n + s.loss, 0) / part.length;
}

/** What a run shows while it goes on: a bar with the newest figures, a growing table, a chart that redraws itself. */
export class LiveRun {
  private bar: ProgressBar | undefined;
  /** The cell that has started the run: tokenising may go on after it. */
  private readonly cell: unknown = publisher()?.cell();
  private readonly notebook = publisher() !== undefined;
  private readonly rows: LiveDisplay | undefined = this.notebook
    ? new LiveDisplay({ interval: 200, share: 1 })
    : undefined;
  private readonly chart: LiveDisplay | undefined = this.notebook ? new LiveDisplay() : undefined;

  /** The run is about to begin with `plan.steps` steps; `notes` say what was done to the rows. */
  start(plan: RunPlan, notes: Readonly<Record<string, string>>): void {
    this.bar = new ProgressBar({ label: "Training", total: plan.steps, unit: "steps", cell: this.cell });
    this.bar.update(0, notes);
  }

  step(step: TrainStep, steps: readonly TrainStep[]): void {
    this.bar?.update(step.step, {
      loss: step.loss,
      ...(step.validationLoss === undefined ? {} : { validation: step.validationLoss }),
      "tokens/s": Math.round(step.tokensPerSecond),
    });
    this.rows?.show(() => stepsTable(steps));
    this.chart?.show(() => lossPlot(steps));
  }

  /** A checkpoint was saved, or could not be. */
  saved(note: string): void {
    if (this.bar) this.bar.update(this.bar.done, { saved: note });
  }

  /** Ends the displays; settles when the last picture is published. */
  async finish(result: TrainResult): Promise<void> {
    this.bar?.finish(result.ended === "finished" ? undefined : result.ended);
    await Promise.all([this.rows?.finish(), this.chart?.finish()]);
  }

  async fail(error: unknown): Promise<void> {
    const text = error instanceof Error ? error.message : String(error);
    this.bar ??= new ProgressBar({ label: "Training", cell: this.cell });
    this.bar.fail(text);
    await Promise.all([this.rows?.finish(), this.chart?.finish()]);
  }
}
