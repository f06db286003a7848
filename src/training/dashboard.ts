/** The charts of a run: all in one figure, so that one display is drawn anew while the run goes on. */
import { formatBytes } from "../display/format.js";
import { ConfigError } from "../errors.js";
import { line, thin } from "../plot/line.js";
import { Plot } from "../plot/plot.js";
import { lineText, titled } from "../plot/text.js";
import { axis, colorOf, makeFigure } from "../plot/theme.js";
import type { StepMemory, TrainStep } from "./options.js";

/** What `run.plot` shows: everything, or one chart. */
export type Panel = "all" | "loss" | "lr" | "gradNorm" | "tokensPerSecond" | "memory";

const PARTS: readonly (keyof StepMemory)[] = ["weights", "adapters", "gradients", "optimizer", "activations"];
const MOST_POINTS = 1000;

interface Series {
  name: string;
  x: number[];
  y: number[];
}

interface PanelShape {
  title: string;
  /** Where it stands in the figure, as shares of it. */
  x: readonly [number, number];
  y: readonly [number, number];
  ticks?: Record<string, unknown>;
}

const PANELS: Record<Exclude<Panel, "all">, PanelShape> = {
  loss: { title: "Loss (nats a token)", x: [0, 0.52], y: [0.56, 0.93] },
  memory: { title: "Memory at the peak of a step", x: [0.615, 0.835], y: [0.56, 0.93] },
  lr: { title: "Learning rate", x: [0, 0.25], y: [0, 0.34], ticks: { tickformat: ".2~g", nticks: 5 } },
  gradNorm: { title: "Gradient norm", x: [0.375, 0.625], y: [0, 0.34], ticks: { nticks: 5 } },
  tokensPerSecond: { title: "Tokens a second", x: [0.75, 1], y: [0, 0.34], ticks: { tickformat: ",", nticks: 5 } },
};

/** Charts of the steps so far. @throws ConfigError for a panel that there is not. */
export function runPlot(steps: readonly TrainStep[], panel: Panel = "all"): Plot {
  if (panel === "loss") return lossPlot(steps);
  if (panel === "all") return dashboard(steps);
  if (!Object.hasOwn(PANELS, panel))
    throw new ConfigError(
      `plot: there is no "${String(panel)}" of a run; there are all, ${Object.keys(PANELS).join(", ")}.`,
    );
  const { series, unit } = seriesOf(steps, panel);
  const rows = series.flatMap(({ name, x, y }) => x.map((step, i) => ({ step, value: y[i]!, name })));
  const shape = PANELS[panel];
  const plot = line(rows, { x: "step", y: "value", series: "name", title: shape.title, yLabel: unit, xLabel: "step" });
  if (panel === "memory") for (const trace of plot.figure.data) Object.assign(trace, stacked);
  return plot;
}

/** Training loss of every step and validation loss where it was measured, over the steps. */
function lossPlot(steps: readonly TrainStep[]): Plot {
  const rows = seriesOf(steps, "loss").series.flatMap(({ name, x, y }) =>
    x.map((step, i) => ({ step, loss: y[i]!, series: name })),
  );
  return line(rows, { x: "step", y: "loss", series: "series", title: "Loss", xLabel: "step", yLabel: "nats a token" });
}

const stacked = { stackgroup: "memory", mode: "lines", line: { width: 0.5 } };

function dashboard(steps: readonly TrainStep[]): Plot {
  const data: Record<string, unknown>[] = [];
  const layout: Record<string, unknown> = {};
  const annotations: Record<string, unknown>[] = [];
  Object.entries(PANELS).forEach(([panel, shape], index) => {
    const number = index === 0 ? "" : String(index + 1);
    const { series, unit } = seriesOf(steps, panel as Panel);
    const anchors = { xaxis: `x${number}`, yaxis: `y${number}` };
    series.forEach(({ name, x, y }, i) => {
      const kept = thin(y, MOST_POINTS);
      const few = y.length <= 30;
      data.push({
        type: "scatter",
        ...anchors,
        name,
        x: kept ? kept.map((k) => x[k]) : x,
        // Six digits: a Jupyter server passes on one megabyte a second, pictures included.
        y: (kept ? kept.map((k) => y[k]!) : y).map((value) => Number(value.toPrecision(6))),
        mode: few ? "lines+markers" : "lines",
        line: { color: colorOf(i), width: 2 },
        marker: { color: colorOf(i), size: 5 },
        showlegend: panel === "loss" || panel === "memory",
        ...(panel === "memory" ? { ...stacked, fillcolor: colorOf(i), legend: "legend2" } : {}),
      });
    });
    const [left, right] = shape.x;
    const [low, high] = shape.y;
    const small = { tickfont: { size: 11 }, title: { text: "" } };
    layout[`xaxis${number}`] = axis(undefined, { domain: [left, right], anchor: `y${number}`, nticks: 6, ...small });
    layout[`yaxis${number}`] = axis(undefined, { domain: [low, high], anchor: `x${number}`, ...shape.ticks, ...small });
    const text = panel === "memory" && unit !== "" ? `${shape.title} (${unit})` : shape.title;
    const place = { x: left, y: high, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom" };
    annotations.push({
      text,
      ...place,
      yshift: panel === "loss" ? 24 : 6,
      showarrow: false,
      font: { size: 13, weight: 600 },
    });
  });
  const legend = { orientation: "h", xanchor: "left", yanchor: "bottom", traceorder: "normal", font: { size: 11 } };
  const figure = makeFigure(
    data,
    { height: 520 },
    {
      ...layout,
      annotations,
      showlegend: true,
      legend: { ...legend, x: 0, y: 0.93 },
      legend2: { ...legend, x: 0.85, y: 0.93, orientation: "v", yanchor: "top", traceorder: "reversed" },
      hovermode: "x unified",
      margin: { l: 56, r: 16, t: 24, b: 36 },
    },
  );
  return new Plot(figure, { height: 520 }, () => dashboardText(steps));
}

function dashboardText(steps: readonly TrainStep[]): string {
  const series = Object.keys(PANELS)
    .filter((panel) => panel !== "memory")
    .flatMap((panel) =>
      seriesOf(steps, panel as Panel).series.map(({ name, y }) => ({
        name: panel === "loss" ? `${name} loss` : name,
        values: y,
      })),
    );
  const last = steps.at(-1)?.memoryParts;
  const memory = last ? [`memory: ${PARTS.map((part) => `${part} ${formatBytes(last[part])}`).join(", ")}`] : [];
  return titled("Training", [...lineText(series), ...memory]);
}

function seriesOf(steps: readonly TrainStep[], panel: Panel): { series: Series[]; unit: string } {
  const of = (name: string, pick: (step: TrainStep) => number | undefined): Series => {
    const known = steps.filter((step) => pick(step) !== undefined);
    return { name, x: known.map((s) => s.step), y: known.map((s) => pick(s)!) };
  };
  switch (panel) {
    case "loss": {
      const both = [of("training", (s) => s.loss), of("validation", (s) => s.validationLoss)];
      return { series: both.filter(({ name, x }) => name === "training" || x.length > 0), unit: "nats a token" };
    }
    case "lr":
      return { series: [of("learning rate", (s) => s.lr)], unit: "" };
    case "gradNorm":
      return { series: [of("gradient norm", (s) => s.gradNorm)], unit: "" };
    case "tokensPerSecond":
      return { series: [of("tokens/s", (s) => s.tokensPerSecond)], unit: "tokens/s" };
    default: {
      const most = steps.reduce((n, s) => Math.max(n, s.peakMemory ?? 0), 0);
      const [unit, size] = most >= 2 ** 30 ? ["GiB", 2 ** 30] : ["MiB", 2 ** 20];
      const parts = PARTS.map((part) => of(part, (s) => s.memoryParts && s.memoryParts[part] / (size as number)));
      return { series: parts.filter(({ y }) => y.some((value) => value > 0)), unit: unit as string };
    }
  }
}
