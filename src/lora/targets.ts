import { createContext, Script } from "node:vm";
import { ConfigError } from "../errors.js";
import type { TargetRules } from "./options.js";

const MILLISECONDS = 500;
const MOST_PATTERNS = 1000;
const LONGEST = 2000;

/** Whether a full name is meant by one of the targets: equal, or its end after a dot (PEFT's rule for lists). */
export function matchesTarget(name: string, targets: readonly string[]): boolean {
  return targets.some((t) => name === t || name.endsWith(`.${t}`));
}

/**
 * Which names a pattern in Python's or JavaScript's spelling fits whole; `after`: what may stand before it.
 * Patterns come from downloaded files too: one that takes too long is an error.
 * @throws ConfigError naming the option, when it is no pattern.
 */
export function fits(
  pattern: string,
  names: readonly string[],
  option: string,
  around: readonly string[] = ["", ""],
  milliseconds: number = MILLISECONDS,
): boolean[] {
  if (pattern.length > LONGEST)
    throw new ConfigError(`${option}: a pattern of ${pattern.length} characters is not used.`);
  const source = pattern.replaceAll("(?P<", "(?<").replaceAll(/\\Z/g, "$");
  let expression: RegExp;
  try {
    expression = new RegExp(`^(?:${around[0]}(?:${source})${around[1]})$`, "su");
  } catch {
    try {
      expression = new RegExp(`^(?:${around[0]}(?:${source})${around[1]})$`, "s"); // escapes that "u" is strict about
    } catch (cause) {
      throw new ConfigError(`${option}: "${pattern}" is no pattern that can be used (${(cause as Error).message}).`);
    }
  }
  const context = createContext({ test: (i: number) => i, source: expression.source, flags: expression.flags });
  const text = `{ const e = new RegExp(source, flags); JSON.stringify(${JSON.stringify(names)}.map((n) => e.test(n))) }`;
  try {
    return JSON.parse(
      new Script(text).runInContext(context, { timeout: Math.max(1, Math.ceil(milliseconds)) }),
    ) as boolean[];
  } catch (cause) {
    throw new ConfigError(`${option}: the pattern "${pattern}" takes too long to try; write it more simply.`, {
      cause,
    });
  }
}

/** The value of the first pattern that fits the end of each name (PEFT's `get_pattern_key`), `otherwise` where none does. */
export function byPattern(
  names: readonly string[],
  patterns: Readonly<Record<string, number>>,
  otherwise: number,
  option: string,
): number[] {
  const values = names.map((): number | undefined => undefined);
  const entries = Object.entries(patterns);
  if (entries.length > MOST_PATTERNS)
    throw new ConfigError(`${option}: ${entries.length} patterns, at most ${MOST_PATTERNS} are tried.`);
  let left = MILLISECONDS; // for all of them
  for (const [pattern, value] of entries) {
    const begun = performance.now();
    const found = fits(pattern, names, option, ["(?:.*\\.)?", ""], left);
    left -= performance.now() - begun;
    names.forEach((_, i) => {
      if (found[i]) values[i] ??= value;
    });
  }
  return values.map((v) => v ?? otherwise);
}

/** Names that PEFT's `modules_to_save` means: those that end so. */
export function savedNames(names: readonly string[], wanted: readonly string[]): string[] {
  return names.filter((n) => wanted.some((w) => n.endsWith(w)));
}

/**
 * The names that an adapter's rules choose, by PEFT's `check_target_module_exists`.
 * @param target what is meant where the rules name nothing.
 */
export function chooseTargets(
  names: readonly string[],
  rules: TargetRules,
  target: readonly string[] | string,
): string[] {
  const { exclude, layers, layersPattern, modulesToSave } = rules;
  const excluded =
    typeof exclude === "string"
      ? fits(exclude, names, "exclude")
      : names.map((n) => exclude.length > 0 && matchesTarget(n, exclude));
  const found = typeof target === "string" ? fits(target, names, "target") : undefined;
  const inSaved = (name: string): boolean =>
    modulesToSave.some((m) => `.${name}.`.includes(`.${m}.`) || name.endsWith(`.${m}`));
  return names.filter((name, i) => {
    if (excluded[i] || inSaved(name)) return false;
    if (found) return found[i];
    if (target.includes(name)) return true;
    if (!matchesTarget(name, target as readonly string[])) return false;
    if (!layers || layers.length === 0) return true;
    const number = blockNumber(name, layersPattern);
    return number !== undefined && layers.includes(number);
  });
}

/** The number of the block that a name speaks of. */
function blockNumber(name: string, patterns: readonly string[]): number | undefined {
  const parts = name.split(".");
  for (const pattern of patterns.length > 0 ? patterns : [undefined]) {
    for (let i = 1; i < parts.length - 1; i++) {
      if (!/^\d+$/.test(parts[i]!)) continue;
      if (pattern === undefined ? i >= 2 : `.${parts.slice(0, i).join(".")}`.endsWith(`.${pattern}`))
        return Number(parts[i]);
    }
  }
  return undefined;
}

/** Up to three names most like a wrong one, by the number of letters that must change. */
export function nearest(wrong: string, names: Iterable<string>): string[] {
  const scored = [...new Set(names)].map((n) => [distance(wrong, n), n] as const);
  const limit = Math.max(2, Math.ceil(wrong.length / 2));
  return scored.filter(([d]) => d <= limit).sort((a, b) => a[0] - b[0]).slice(0, 3).map(([, n]) => n); // biome-ignore format: one thought
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
