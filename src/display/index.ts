/** Shows tables, progress and pictures, in a kernel's cells and on terminals. */
export { toBundle, toText } from "./bundle.js";
export { type DisplayHandle, type DisplayOptions, display } from "./display.js";
export * from "./format.js";
export * from "./host.js";
export { el, escapeHtml, type HtmlNode } from "./html.js";
export { LiveDisplay, type LiveOptions } from "./live.js";
export { ProgressBar, type ProgressExtra, type ProgressOptions, progress } from "./progress.js";
export { type Align, cellText, Table, type TableOptions, table } from "./table.js";
