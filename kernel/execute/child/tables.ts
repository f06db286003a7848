import type { MimeBundle } from "../channel.js";
import type { Cell } from "./cell.js";

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Text between tags and in attributes: every sign of HTML's own is escaped, what HTML cannot hold becomes U+FFFD. */
export function escaped(text: string): string {
  return (
    text
      .replace(/[&<>"']/g, (sign) => entities[sign]!)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: HTML cannot hold these
      .replace(/[\u0000-\u0008\u000b\u000e-\u001f\u007f]|\p{Surrogate}/gu, "\ufffd")
  );
}

const MAX_HTML = 200;
const MAX_TEXT = 60;

function cut(text: string, limit: number): string {
  return text.length > limit ? `${text.slice(0, limit - 1).trimEnd()}…` : text;
}

const line = "1px solid rgba(128,128,128,0.35)";

/** A table as HTML and as aligned text; its values may come from data. `footer` says what is left out. */
export function tableBundle(
  columns: readonly string[],
  rows: readonly (readonly unknown[])[],
  footer = "",
): MimeBundle {
  const right = columns.map(
    (_, i) =>
      rows.length > 0 &&
      rows.every((row) => row[i] == null || typeof row[i] === "number" || typeof row[i] === "bigint"),
  );
  const cells = rows.map((row) => columns.map((_, i) => cellText(row[i])));
  const align = (i: number): string => (right[i] ? "right" : "left");
  const head = columns.map(
    (name, i) =>
      `<th style="text-align:${align(i)};padding:4px 10px;border-bottom:${line}">${escaped(cut(name, MAX_HTML))}</th>`,
  );
  const body = cells.map(
    (row) =>
      `<tr>${row.map((text, i) => `<td style="text-align:${align(i)};padding:3px 10px;vertical-align:top">${escaped(cut(text, MAX_HTML))}</td>`).join("")}</tr>`,
  );
  const below = footer === "" ? "" : `<div style="opacity:0.6;margin:4px 0 0 0">${escaped(footer)}</div>`;
  const html = `<div style="overflow:auto;max-width:100%"><table style="border-collapse:collapse;border:none"><thead><tr>${head.join("")}</tr></thead><tbody>${body.join("")}</tbody></table>${below}</div>`;
  const short = [[...columns], ...cells].map((row) => row.map((text) => cut(text.replace(/\s+/g, " "), MAX_TEXT)));
  const widths = columns.map((_, i) => Math.max(...short.map((row) => row[i]!.length)));
  const text = short.map((row) =>
    row
      .map((one, i) => (right[i] ? one.padStart(widths[i]!) : one.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
  text.splice(1, 0, widths.map((width) => "─".repeat(width)).join("  "));
  return { "text/html": html, "text/plain": [...text, ...(footer === "" ? [] : [footer])].join("\n") };
}

/** A table of the kernel's own, such as that of `%who`. */
export function showTable(cell: Cell, columns: readonly string[], rows: readonly (readonly unknown[])[]): void {
  cell.publish(tableBundle(columns, rows));
}

function cellText(value: unknown): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
  if (value instanceof Uint8Array) return `<${value.length} bytes>`;
  if (typeof value === "object") {
    try {
      return JSON.stringify(value, (_key, part) => (typeof part === "bigint" ? String(part) : part)) ?? "null";
    } catch {
      return "[object]";
    }
  }
  return String(value);
}
