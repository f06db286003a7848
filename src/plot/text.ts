/** Charts of characters. */
import { columnFormatter, cut, displayWidth, formatNumber, oneLine, pad } from "../display/format.js";

const levels = "▁▂▃▄▅▆▇█";

/** A title and what follows it, as lines. */
export function titled(title: string | undefined, lines: readonly string[]): string {
  return [...(title === undefined ? [] : [oneLine(title)]), ...lines].join("\n");
}

/** A line of blocks: values averaged into at most `width` steps from the smallest to the largest. */
export function sparkline(values: readonly (number | null)[], width = 40): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return "";
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  const count = Math.min(width, values.length);
  let line = "";
  for (let i = 0; i < count; i++) {
    const part = values
      .slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count))
      .filter((value) => value !== null);
    if (part.length === 0) line += " ";
    else {
      const mean = part.reduce((a, b) => a + b, 0) / part.length;
      line += levels[high === low ? 3 : Math.min(7, Math.floor(((mean - low) / (high - low)) * 8))];
    }
  }
  return line;
}

/** One line a series: `training  █▆▄▂▁  2.31 → 0.84 (least 0.80, most 2.31)`. */
export function lineText(series: readonly { name: string; values: readonly (number | null)[] }[]): string[] {
  const names = series.map(({ name }) => cut(oneLine(name), 24));
  const width = Math.max(0, ...names.map(displayWidth));
  return series.map(({ values }, index) => {
    const known = values.filter((value) => value !== null);
    const name = width === 0 ? "" : `${pad(names[index]!, width)}  `;
    if (known.length === 0) return `${name}no values`;
    const low = known.reduce((a, b) => Math.min(a, b));
    const high = known.reduce((a, b) => Math.max(a, b));
    const [first, last, least, most] = [known[0]!, known.at(-1)!, low, high].map((value) => formatNumber(value));
    return `${name}${sparkline(values)}  ${first} → ${last} (least ${least}, most ${most})`;
  });
}

/** Horizontal bars with their values. `largest`: what the longest bar stands for, so that bars of several lists can be compared. */
export function barText(
  names: readonly string[],
  values: readonly (number | null)[],
  { limit = 30, largest = largestOf(values.slice(0, limit)) }: { limit?: number; largest?: number } = {},
): string[] {
  const shown = names.slice(0, limit).map((name) => cut(oneLine(name), 28));
  const numbers = values.slice(0, limit);
  const width = Math.max(0, ...shown.map(displayWidth));
  const write = columnFormatter(numbers.filter((value) => value !== null));
  const texts = numbers.map((value) => (value === null ? "null" : write(value)));
  const widest = Math.max(0, ...texts.map((text) => text.length));
  const lines = shown.map((name, i) => {
    const share = largest > 0 ? Math.abs(numbers[i] ?? 0) / largest : 0;
    return `${pad(name, width)}  ${texts[i]!.padStart(widest)}  ${"█".repeat(Math.round(share * 40))}`.trimEnd();
  });
  return names.length > limit ? [...lines, `… ${names.length - limit} more`] : lines;
}

/** The largest absolute value, 0 where there is none. */
export function largestOf(values: readonly (number | null)[]): number {
  return values.reduce<number>((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
}
