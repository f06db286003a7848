/** How a prediction of memory looks: a bar by part, a chart and a table over the ways of checkpointing. */
import { formatBytes } from "./display/format.js";
import { type Child, el, type HtmlNode, type Style } from "./display/html.js";
import { type Table, table } from "./display/table.js";
import type { MemoryEstimate } from "./estimate.js";
import { bar, type Plot } from "./plot/index.js";
import { colorOf } from "./plot/theme.js";

const PARTS = ["weights", "adapters", "gradients", "optimizer", "activations", "other", "logits", "scratch"] as const;

const swatch: Style = {
  display: "inline-block",
  width: "10px",
  height: "10px",
  margin: "0 5px 0 0",
  borderRadius: "2px",
};

/** Parts that are counted in the peak; on the CPU working memory stands beside it. */
function counted(e: MemoryEstimate): [string, number][] {
  const names = e.step.device === "cpu" ? PARTS.slice(0, 6) : PARTS;
  return names.map((name): [string, number] => [name, e[name]]);
}

/** One bar of the peak by part, as long as its share of the limit (or of the peak, if that is more), with a legend. */
export function barHtml(e: MemoryEstimate): HtmlNode {
  const whole = Math.max(e.peak, e.limit ?? 0, 1);
  const parts = counted(e);
  const pieces = parts.map(([name, bytes], i) => {
    const width = `${((100 * bytes) / whole).toFixed(2)}%`;
    return el("div", {
      style: { flex: `0 0 ${width}`, height: "18px", background: colorOf(i) },
      title: `${name}: ${formatBytes(bytes)}`,
    });
  });
  const legend = parts.flatMap(([name, bytes], i): Child[] =>
    bytes < 0.002 * whole
      ? []
      : [
          el(
            "span",
            { style: { margin: "0 14px 0 0", whiteSpace: "nowrap" } },
            el("span", { style: { ...swatch, background: colorOf(i) } }),
            `${name} ${formatBytes(bytes)}`,
          ),
        ],
  );
  const verdict =
    e.limit === undefined
      ? `peak ${formatBytes(e.peak)}`
      : `peak ${formatBytes(e.peak)} of ${formatBytes(e.limit)}: ${e.fits ? "it fits" : "it does not fit"}`;
  return el(
    "div",
    { style: { maxWidth: "640px", margin: "0 0 8px 0" } },
    el("div", { style: { margin: "0 0 4px 0" } }, el("b", {}, verdict)),
    el(
      "div",
      { style: { display: "flex", background: "rgba(128,128,128,0.2)", borderRadius: "3px", overflow: "hidden" } },
      ...pieces,
    ),
    el("div", { style: { margin: "4px 0 0 0" } }, ...legend),
  );
}

/** Peak, the largest batch and the longest rows for each way of checkpointing. */
export function compareTable(estimates: readonly MemoryEstimate[]): Table {
  const [{ step, limit }] = estimates as [MemoryEstimate];
  const rows = estimates.map((e) => [
    e.step.checkpointing,
    formatBytes(e.activations),
    formatBytes(e.peak),
    ...(e.host > 0 || estimates.some((x) => x.host > 0) ? [formatBytes(e.host)] : []),
    ...(limit === undefined ? [] : [e.fits ? "yes" : "no", e.largestBatch(), e.largestLength()]),
  ]);
  const columns = [
    ...["checkpointing", "activations", "peak"],
    ...(estimates.some((e) => e.host > 0) ? ["host memory"] : []),
    ...(limit === undefined ? [] : ["fits", "largest batch", "longest rows"]),
  ];
  const below = limit === undefined ? "" : `, below ${formatBytes(limit)}`;
  return table(columns, rows, {
    title: `Memory of a step of ${step.batch} x ${step.length} tokens on ${step.device}, ${step.optimizer}${below}`,
    align: { activations: "right", peak: "right", "host memory": "right" },
  });
}

/** Bars of the peak by part, one for each way of checkpointing, and a line at the limit. */
export function estimatePlot(estimates: readonly MemoryEstimate[]): Plot {
  const [{ step, limit }] = estimates as [MemoryEstimate];
  const title = `Memory of a step of ${step.batch} x ${step.length} tokens on ${step.device}`;
  const bars = estimates.map((estimate) => ({ label: estimate.step.checkpointing, estimate }));
  return partsPlot(bars, { x: "checkpointing", title, limit });
}

/** A stacked bar by part for each estimate, and a line at the limit. */
export function partsPlot(
  bars: readonly { label: string; estimate: MemoryEstimate }[],
  { x, title, limit }: { x: string; title: string; limit: number | undefined },
): Plot {
  const most = Math.max(...bars.map(({ estimate }) => estimate.peak), limit ?? 0);
  const [unit, size] = most >= 2 ** 30 ? ["GiB", 2 ** 30] : ["MiB", 2 ** 20];
  const rows = bars.flatMap(({ label, estimate }) =>
    counted(estimate).map(([part, bytes]) => ({ [x]: label, part, value: bytes / size })),
  );
  const parts = new Set(rows.filter((row) => row.value > 0.002 * (most / size)).map((row) => row.part));
  const plot = bar(
    rows.filter((row) => parts.has(row.part)),
    { x, y: "value", series: "part", stacked: true, yLabel: unit, title },
  );
  if (limit !== undefined) {
    const at = limit / size;
    const lying = plot.figure.data.some((trace) => trace.orientation === "h");
    const across = { xref: "paper", yref: "y", x0: 0, x1: 1, y0: at, y1: at };
    const upwards = { xref: "x", yref: "paper", x0: at, x1: at, y0: 0, y1: 1 };
    plot.figure.layout.shapes = [
      { type: "line", ...(lying ? upwards : across), line: { color: "#cc0000", width: 2, dash: "dash" } },
    ];
    plot.figure.layout.annotations = [
      {
        text: `limit ${formatBytes(limit)}`,
        ...(lying
          ? { x: at, yref: "paper", y: 0, xanchor: "left", yanchor: "bottom" }
          : { xref: "paper", x: 1, y: at, xanchor: "right", yanchor: "bottom" }),
        showarrow: false,
      },
    ];
  }
  return plot;
}
