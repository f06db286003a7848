/**
 * Keeping what a user typed apart from what a template wrote. A user may type "<|im_end|>": in the chat it must stay text, or
 * they could end their own turn and speak as the assistant. So every special token that stands in a message is broken by a mark
 * before the template sees it; the marks are taken out again when the rendered text is encoded.
 */

// Noncharacters: no text for interchange may hold them, and no template trims or splits at them.
const MARKS = ["\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"];

/** A mark that occurs in none of the strings of a value. */
export function freeMark(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  const free = MARKS.find((mark) => !text.includes(mark));
  // A text that holds every one of these is made of nothing but mischief: its own marks then go as well.
  return free ?? MARKS[0]!;
}

/** The same value with a mark inside each special token of its strings. */
export function breakSpecials<T>(value: T, specials: ReadonlySet<string>, mark: string, depth = 0): T {
  if (typeof value === "string") return breakText(value, specials, mark) as T;
  if (typeof value !== "object" || value === null || depth > 32) return value;
  if (Array.isArray(value)) return value.map((entry) => breakSpecials(entry, specials, mark, depth + 1)) as T;
  const copy: Record<string, unknown> = Object.create(null);
  for (const [name, entry] of Object.entries(value)) copy[name] = breakSpecials(entry, specials, mark, depth + 1);
  return copy as T;
}

function breakText(text: string, specials: ReadonlySet<string>, mark: string): string {
  let broken = text;
  for (const special of specials) {
    if (special.length < 2 || !broken.includes(special)) continue;
    const first = String.fromCodePoint(special.codePointAt(0)!);
    broken = broken.replaceAll(special, first + mark + special.slice(first.length));
  }
  return broken;
}
