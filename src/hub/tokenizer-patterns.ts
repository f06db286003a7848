/** Which regular expressions of a tokenizer.json are known to take time in proportion to the text. */
import { isObject, type Json } from "./json.js";

const LETTERS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const REST = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/** Of GPT-2, Llama 3, Qwen 2, DeepSeek and StarCoder, as files write them; and those that this project writes itself. */
const KNOWN: ReadonlySet<string> = new Set([
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  `${SHORT}|${LETTERS}|\\p{N}{1,3}|${REST}`,
  `${SHORT}|${LETTERS}|\\p{N}|${REST}`,
  "\\p{N}",
  "\\p{N}+",
  "\\p{N}{1,3}",
  "\\d",
  "[0-9]",
  " {2,}",
  "\\A +|(?<! ) +\\z",
  "(?<!\u2581)\u2581+\\z",
]);

/** Whether a part of a tokenizer.json has a pattern that could take any time: only those run under a limit, which costs some. */
export function hasUnknownPattern(part: Json | undefined, depth = 0): boolean {
  if (depth > 64) return true;
  if (Array.isArray(part)) return part.some((entry) => hasUnknownPattern(entry, depth + 1));
  if (!isObject(part)) return false;
  return Object.entries(part).some(([name, value]) =>
    name === "Regex" ? typeof value !== "string" || !KNOWN.has(value) : hasUnknownPattern(value, depth + 1),
  );
}
