/** Numbers, sizes and times as people read them; and text made fit for a terminal line. */

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const unitNames = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes with binary units: `1,536` → `"1.50 KiB"`. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes)) return String(bytes);
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 1023.5 && unit < unitNames.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${bytes < 0 ? "-" : ""}${value.toFixed(digits)} ${unitNames[unit]}`;
}

/** A length of time given in seconds: `"320 ms"`, `"12.3 s"`, `"4 min 05 s"`, `"2 h 03 min"`, `"3 d 04 h"`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return "?";
  if (seconds < 0.0009995) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** One number by itself: integers with thousands separators, others with about `digits` significant digits. */
export function formatNumber(value: number, digits = 4): string {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "∞");
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return grouped.format(value);
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-4) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return withDecimals(value, Math.min(decimals, 12))
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");
}

/** A share: `0.1234` → `"12.3%"`. */
export function formatPercent(share: number, decimals = 1): string {
  return Number.isFinite(share) ? `${(share * 100).toFixed(decimals)}%` : String(share);
}

/** A count in short form: `1_236_000_000` → `"1.24 B"`, `12_345` → `"12.3 K"`. */
export function formatCount(count: number): string {
  const size = Math.abs(count);
  for (const [limit, name] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "K"],
  ] as const) {
    if (size >= limit * 0.9995) {
      const value = count / limit;
      const short = Math.abs(value);
      return `${value.toFixed(short < 9.995 ? 2 : short < 99.95 ? 1 : 0)} ${name}`;
    }
  }
  return formatNumber(count);
}

/**
 * A formatter for a whole column, so that its numbers line up: integers are grouped; other columns share one number of
 * decimals, enough for `digits` significant digits of the largest, less the zeros that all of them end in. Where the largest
 * is over a thousand times the smallest, as in a list of unlike metrics, each stands for itself.
 */
export function columnFormatter(values: Iterable<number>, digits = 4): (value: number) => string {
  let largest = 0;
  let smallest = Number.POSITIVE_INFINITY;
  let integers = true;
  const finite: number[] = [];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    finite.push(value);
    const size = Math.abs(value);
    integers &&= Number.isInteger(value);
    if (size > largest) largest = size;
    if (size > 0 && size < smallest) smallest = size;
  }
  if (integers || largest === 0) return (value) => formatNumber(value, digits);
  if (largest >= 1e12 || smallest < 1e-7 || largest / smallest > 1000) return (value) => formatNumber(value, digits);
  // Enough decimals that the smallest value keeps two digits.
  const fromLargest = digits - 1 - Math.floor(Math.log10(largest));
  const fromSmallest = 1 - Math.floor(Math.log10(smallest));
  let decimals = Math.min(10, Math.max(0, fromLargest, Math.min(fromSmallest, fromLargest + 3)));
  while (decimals > 1 && finite.every((value) => value.toFixed(decimals).endsWith("0"))) decimals -= 1;
  return (value) => (Number.isFinite(value) ? withDecimals(value, decimals) : formatNumber(value));
}

/** A formatter with one number of decimals for all, as for the cells of a matrix, where small values may become zero. */
export function matrixFormatter(values: Iterable<number>, digits = 3): (value: number) => string {
  let largest = 0;
  let integers = true;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    largest = Math.max(largest, Math.abs(value));
    integers &&= Number.isInteger(value);
  }
  if (integers || largest >= 1e9 || largest < 1e-6) return (value) => formatNumber(value, digits);
  const decimals = Math.min(8, Math.max(0, digits - 1 - Math.floor(Math.log10(largest))));
  return (value) =>
    Number.isFinite(value) ? withDecimals(value, decimals).replace(/^-(0\.?0*)$/, "$1") : formatNumber(value);
}

function withDecimals(value: number, decimals: number): string {
  const [whole = "", fraction] = value.toFixed(decimals).split(".");
  const sign = whole.startsWith("-") ? "-" : "";
  const digits = whole.replace("-", "").replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return sign + digits + (fraction === undefined ? "" : `.${fraction}`);
}

// C0, DEL, C1, line and paragraph separators, and the marks that turn the direction of writing.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const unsafe = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** One printable line: line ends become `⏎`, tabs a space, every other control character a visible sign. */
export function oneLine(text: string): string {
  return text.replace(/\r\n?|\n/g, "⏎").replace(unsafe, (sign) => {
    const code = sign.charCodeAt(0);
    if (code === 9) return " ";
    return code < 32 ? String.fromCharCode(0x2400 + code) : "\ufffd";
  });
}

const zeroWidth = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
const wide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]$/u;

function characterWidth(character: string): number {
  if (character < "\u0300") return 1;
  if (wide.test(character)) return 2;
  return zeroWidth.test(character) ? 0 : 1;
}

/** Columns that a text takes in a terminal (East Asian characters take two). */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

/** Cuts a text to `width` terminal columns, with `…` where something was left out. */
export function cut(text: string, width: number): string {
  // No text of so few code units can be too wide, and long ones need no full walk.
  if (text.length * 2 <= width) return text;
  let used = 0;
  let kept = "";
  for (const character of text) {
    const next = characterWidth(character);
    if (used + next > width) return `${cutLast(kept, used - (width - 1))}…`;
    used += next;
    kept += character;
  }
  return text;
}

function cutLast(text: string, columns: number): string {
  const characters = Array.from(text);
  let over = columns;
  while (over > 0 && characters.length > 0) over -= characterWidth(characters.pop()!);
  return characters.join("");
}

/** Fills a text with spaces to `width` terminal columns. */
export function pad(text: string, width: number, align: "left" | "right" | "center" = "left"): string {
  const space = Math.max(0, width - displayWidth(text));
  if (align === "right") return " ".repeat(space) + text;
  if (align === "center") return " ".repeat(space >> 1) + text + " ".repeat(space - (space >> 1));
  return text + " ".repeat(space);
}
