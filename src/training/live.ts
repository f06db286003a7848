import { publisher } from "../display/host.js";
import { LiveDisplay } from "../display/live.js";
import { ProgressBar } from "../display/progress.js";
import { type Table, table } from "../display/table.js";
import { runPlot } from "./dashboard.js";
import type { RunPlan } from "./loop.js";
import type { TrainStep } from "./options.js";
import type { TrainResult } from "./run.js";

/** Rows of the growing table: as many of the newest as a screen takes. */
const SHOWN_ROWS = 12;
const SHOWN_MEASUREMENTS = 30;

/**
 * Step | Training Loss | Validation Loss: the measurements, or every `every` steps where nothing is measured; the newest where they are many. A
 * row's training loss is the mean since the row before: steadier than a single step's.
 */
export function stepsTable(steps: readonly TrainStep[], every = 1): Table {
  const measured = steps.some((s) => s.validationLoss !== undefined);
  const rows: [step: number, loss: number, validation: number | undefined][] = [];
  let losses: number[] = [];
  for (const { step, loss, validationLoss } of steps) {
    losses.push(loss);
    if (measured ? validationLoss === undefined : step % every !== 0) continue;
    rows.push([step, losses.reduce((a, b) => a + b, 0) / losses.length, validationLoss]);
    losses = [];
  }
  const most = measured ? SHOWN_MEASUREMENTS : SHOWN_ROWS;
  const earlier = Math.max(0, rows.length - most);
  const columns = ["Step", "Training Loss", ...(measured ? ["Validation Loss"] : [])];
  return table(
    columns,
    rows.slice(-most).map((row) => row.slice(0, columns.length)),
    earlier === 0 ? {} : { footer: `${earlier.toLocaleString("en-US")} earlier rows in run.steps` },
  );
}

/** What a run shows while it goes on: a bar with the newest figures, a growing table, and its charts in one display that redraws itself. */
export class LiveRun {
  private bar: ProgressBar | undefined;
  /** The cell that has started the run: tokenising may go on after it. */
  private readonly cell: unknown = publisher()?.cell();
  private readonly notebook = publisher() !== undefined;
  private readonly rows: LiveDisplay | undefined = this.notebook
    ? new LiveDisplay({ interval: 200, share: 1 })
    : undefined;
  private readonly chart: LiveDisplay | undefined = this.notebook ? new LiveDisplay() : undefined;

  private readonly every: number;

  /** @param every Steps between rows of the table, where nothing is measured. */
  constructor(every = 1) {
    this.every = every;
  }

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
    this.rows?.show(() => stepsTable(steps, this.every));
    this.chart?.show(() => runPlot(steps));
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
