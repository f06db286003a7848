/** How all plots look, and text made fit for plotly, which reads tags and formulas in it. */
import { cut, oneLine } from "../display/format.js";

/** Options of every plot. */
export interface PlotOptions {
  title?: string;
  xLabel?: string;
  yLabel?: string;
  /** Pixels of the static picture; the interactive one is as wide as its cell. Default 800. */
  width?: number;
  /** Pixels. Default 420. */
  height?: number;
  /** `"log"` for a logarithmic axis. */
  xScale?: "linear" | "log";
  yScale?: "linear" | "log";
  xRange?: readonly [number, number];
  yRange?: readonly [number, number];
}

/** A plotly figure: plain JSON. */
export interface Figure {
  data: Record<string, unknown>[];
  layout: Record<string, unknown>;
  config: Record<string, unknown>;
}

/** Okabe and Ito's colours, told apart with any kind of colour vision; the yellow, too light for white paper, left out. */
export const palette: readonly string[] = [
  ...["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a4b9d", "#4d4d4d"],
];

/** The colour of the n-th series. */
export const colorOf = (index: number): string => palette[index % palette.length]!;

/** Light to dark blue, the same lightness steps for all eyes. */
export const blues: readonly (readonly [number, string])[] = [
  [0, "#f7fbff"],
  [0.25, "#cfe1f2"],
  [0.5, "#85bcdc"],
  [0.75, "#2f7fbc"],
  [1, "#08306b"],
];

const longestLabel = 60;

/** Text for plotly: its tags, entities and formulas become plain characters, and long ones are cut. */
export function safeText(text: string, limit: number = longestLabel): string {
  return cut(oneLine(text), limit)
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll("$", "&#36;");
}

const ink = "#333333";
const grid = "#e6e6e6";

/** An axis with a label. */
export function axis(label: string | undefined, extra: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    title: { text: label === undefined ? "" : safeText(label), standoff: 12, font: { size: 14 } },
    automargin: true,
    gridcolor: grid,
    linecolor: "#999999",
    showline: true,
    zeroline: false,
    ticks: "outside",
    ticklen: 4,
    tickcolor: "#999999",
    ...extra,
  };
}

/** Axis settings from the options: scale and range (on a logarithmic axis plotly takes powers of ten). */
export function scaleOf(
  scale: "linear" | "log" | undefined,
  range: readonly [number, number] | undefined,
): Record<string, unknown> {
  const log = scale === "log";
  return {
    ...(log ? { type: "log" } : {}),
    ...(range ? { range: log ? range.map((end) => Math.log10(end)) : [...range] } : {}),
  };
}

/** Names of categories on an axis: each stays itself, what is shown of a long one is cut. */
export function categoryAxis(names: readonly string[]): Record<string, unknown> {
  const base = { type: "category", categoryorder: "array", categoryarray: names };
  // With very many, plotly leaves labels out by itself.
  if (names.length > 60) return base;
  return { ...base, tickmode: "array", tickvals: names, ticktext: names.map((name) => safeText(name, 32)) };
}

/** For axes of names: no marks, but the room they take between the axis and the names. */
export const noTicks: Readonly<Record<string, unknown>> = { ticks: "outside", tickcolor: "rgba(0,0,0,0)" };

const emptyNote = {
  text: "no data",
  x: 0.5,
  y: 0.5,
  xref: "paper",
  yref: "paper",
  showarrow: false,
  font: { size: 15 },
};

const isEmpty = (trace: Record<string, unknown>): boolean =>
  [trace.x, trace.y].some((values) => !Array.isArray(values) || values.every((value) => value === null));

/** A title broken at words into lines that fit above a picture of `width` pixels: its letters are about 9 pixels wide. */
function titleLines(title: string, width: number): string[] {
  const most = Math.max(16, Math.floor((width - 92) / 9.2));
  const lines: string[] = [];
  for (const word of cut(oneLine(title), 3 * most).split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= most) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines.map((line) => safeText(line, most));
}

/** A figure with the looks that all plots share. */
export function makeFigure(
  data: Record<string, unknown>[],
  options: PlotOptions,
  layout: Record<string, unknown>,
): Figure {
  const named = data.filter((trace) => trace.showlegend !== false && trace.name !== undefined).length;
  const beside = named > 5 || data.reduce((sum, trace) => sum + String(trace.name ?? "").length + 6, 0) > 96;
  const above = named > 1 && !beside;
  const lines = options.title === undefined ? [] : titleLines(options.title, options.width ?? 800);
  const title = lines.length === 0 ? undefined : lines.join("<br>");
  return {
    data,
    layout: {
      autosize: true,
      height: options.height ?? 420,
      paper_bgcolor: "#ffffff",
      plot_bgcolor: "#ffffff",
      colorway: [...palette],
      font: { size: 13, color: ink },
      margin: { l: 64, r: 28, t: 24 + (lines.length === 0 ? 0 : 5 + 21 * lines.length) + (above ? 24 : 0), b: 56 },
      ...(title === undefined
        ? {}
        : {
            title: {
              text: title,
              x: 0,
              xref: "paper",
              xanchor: "left",
              y: 1,
              yref: "container",
              yanchor: "top",
              pad: { t: 14 + 10 * (lines.length - 1) },
              font: { size: 16 },
            },
          }),
      showlegend: named > 1,
      // Few short names stand in a line above; more of them go to the right.
      legend: above
        ? { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", traceorder: "normal" }
        : { orientation: "v", x: 1.02, xanchor: "left", y: 1, yanchor: "top", traceorder: "normal" },
      hovermode: "closest",
      ...(data.every((trace) => isEmpty(trace)) ? { annotations: [emptyNote] } : {}),
      ...layout,
    },
    // Formulas are never wanted in names that come from data.
    config: { responsive: true, displaylogo: false, typesetMath: false },
  };
}
