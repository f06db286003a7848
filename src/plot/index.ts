/** Charts from tables of data: interactive in notebooks, pictures everywhere, text on terminals. */
export { type BarOptions, bar } from "./bar.js";
export type { PlotData } from "./columns.js";
export { type ConfusionMatrix, type ConfusionOptions, confusion } from "./confusion.js";
export { type HeatmapOptions, heatmap } from "./heatmap.js";
export { type HistogramOptions, histogram } from "./histogram.js";
export { type LineOptions, line } from "./line.js";
export { Plot } from "./plot.js";
export type { PictureSize } from "./render/render.js";
export { type ScatterOptions, scatter } from "./scatter.js";
export type { Figure, PlotOptions } from "./theme.js";
