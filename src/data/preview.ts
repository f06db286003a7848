/** What training will see of some rows: every token as trained, read only, or cut off. */
import { ConfigError, DataError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import { classExample } from "./classes.js";
import { type FormatOptions, formatter, type Row } from "./format.js";
import { type Example, exampleOf, IGNORED, type MaskOptions } from "./mask.js";
import { packExamples } from "./pack.js";
import { promptCut, readPair } from "./preference.js";
import { type Piece, Preview, type PreviewExample, type PreviewRow } from "./preview-show.js";

/** Options of `data.preview`: those of `train` that bear on rows, and how much is shown. */
export interface PreviewOptions<R = Record<string, unknown>> extends MaskOptions {
  /** Rows shown (packed rows, with packing); 5 by default. */
  rows?: number;
  /** Tokens shown of a row, half from its beginning and half from its end; 400 by default. */
  maxTokens?: number;
  maxLength?: number;
  overlong?: "truncate" | "drop" | "error";
  textField?: string;
  format?: (row: R) => unknown;
  /** "orpo" and "dpo" show both answers of each pair. */
  method?: "sft" | "orpo" | "dpo";
  /** Longest prompt of a pair in tokens; of a longer one the end is kept. */
  maxPromptLength?: number;
  /** Packs the first `rows` × 8 rows, as a run would pack all of them. */
  packing?: boolean;
}

/** What a preview needs of a model. */
export interface Previewed {
  readonly tokenizer: Tokenizer;
  readonly config: { readonly maxPositions: number };
  /** Classes of a model with a head for them: what is trained is the class of each row. */
  readonly labels?: readonly string[] | undefined;
}

/**
 * Tokenises the first rows as `train` does, with the same options, and keeps what it would cut.
 *
 * @throws DataError for a row that cannot be read, as `train` does. @throws ConfigError for an option that cannot be.
 */
export async function previewRows(
  rows: Iterable<unknown>,
  model: Previewed,
  options: PreviewOptions = {},
): Promise<Preview> {
  const { rows: count = 5, maxTokens = 400, overlong = "truncate", packing = false } = options;
  for (const [name, value] of Object.entries({ rows: count, maxTokens }))
    if (!Number.isInteger(value) || value < 1)
      throw new ConfigError(`preview: ${name} must be a whole number from 1, received ${String(value)}.`);
  const { tokenizer } = model;
  const maxLength = Math.min(options.maxLength ?? model.config.maxPositions, model.config.maxPositions);
  if (!Number.isInteger(maxLength) || maxLength < 2)
    throw new ConfigError(`preview: maxLength must be a whole number from 2, received ${String(options.maxLength)}.`);
  if (options.method === "orpo" || options.method === "dpo")
    return new Preview(await pairRows(rows, tokenizer, options, count, maxLength), maxLength, maxTokens);
  const read = formatter(options as FormatOptions);
  const shown: PreviewExample[] = [];
  for (const row of rows) {
    if (shown.length === (packing ? 8 * count : count)) break;
    const index = shown.length;
    if (model.labels) {
      const given = options.format ? await options.format(row as Row) : row;
      const { ids, k } = classExample(given, tokenizer, model.labels, options.textField, `Row ${index}`);
      const example = { ids: Int32Array.from(ids), labels: new Int32Array(ids.length).fill(IGNORED) };
      const answer: Piece = { id: k, text: model.labels[k]!, kind: "trained", special: true };
      shown.push({ index, ...describeExample(example, tokenizer, maxLength, overlong, undefined, answer) });
      continue;
    }
    const example = exampleOf(await read(row as Row, index), tokenizer, options);
    shown.push({ index, ...describeExample(example, tokenizer, maxLength, overlong) });
  }
  if (shown.length === 0) throw nothing();
  const lines: PreviewRow[] = packing
    ? packed(shown, options.maxLength, model.config.maxPositions).slice(0, count)
    : shown.map((example) => ({ examples: [example], capacity: undefined }));
  return new Preview(lines, maxLength, maxTokens);
}

// Rows that a run leaves out stand in no packed row.
function packed(all: readonly PreviewExample[], maxLength: number | undefined, limit: number): PreviewRow[] {
  const kept = all.filter((e) => e.state === "kept" || e.state === "cut");
  if (kept.length === 0) return all.map((example) => ({ examples: [example], capacity: undefined }));
  const { rows, capacity } = packExamples(
    kept.map((e) => e.total),
    maxLength,
    limit,
  );
  return rows.map((numbers) => ({ examples: Array.from(numbers, (i) => kept[i]!), capacity }));
}

/** Both answers of the first pairs, one under the other; what becomes of one becomes of both. */
async function pairRows(
  rows: Iterable<unknown>,
  tokenizer: Tokenizer,
  options: PreviewOptions,
  count: number,
  maxLength: number,
): Promise<PreviewRow[]> {
  const { overlong = "truncate", maxPromptLength = Number.POSITIVE_INFINITY, format } = options;
  const lines: PreviewRow[] = [];
  for (const row of rows) {
    const index = lines.length / 2;
    if (index === count) break;
    const pair = await readPair(row as Row, index, "the data set", tokenizer, {
      ...options,
      format: format as ((row: Row) => unknown) | undefined,
    });
    const answers = (["chosen", "rejected"] as const).map((answer) => {
      const example = pair[answer];
      const cut = promptCut(example, maxPromptLength, tokenizer.bosId);
      return { index, answer, ...describeExample(example, tokenizer, maxLength, overlong, cut) };
    });
    const worst = (["refused", "dropped", "untrained"] as const).find((s) => answers.some(({ state }) => state === s));
    for (const answer of answers) {
      lines.push({ examples: [worst ? { ...answer, state: worst } : answer], capacity: undefined });
    }
  }
  if (lines.length === 0) throw nothing();
  return lines;
}

function nothing(): DataError {
  return new DataError("preview: the data set has no rows; check its path, split or filter.");
}

/** @param gap tokens that are cut out of the beginning. */
function describeExample(
  { ids, labels }: Example,
  tokenizer: Tokenizer,
  maxLength: number,
  overlong: string,
  gap: { from: number; to: number } = { from: 0, to: 0 },
  answer?: Piece,
): Omit<PreviewExample, "index"> {
  const left = ids.length - (gap.to - gap.from);
  const long = left > maxLength;
  const total = long && overlong !== "drop" ? maxLength : left;
  const kinds = Array.from(ids, (_, i): Piece["kind"] => {
    if ((i >= gap.from && i < gap.to) || (i >= gap.to && i - (gap.to - gap.from) >= total)) return "cut";
    return i > 0 && labels[i] !== IGNORED ? "trained" : "context"; // nothing precedes the first token
  });
  const trained = kinds.filter((kind) => kind === "trained").length + (answer ? 1 : 0);
  const state =
    long && overlong === "drop"
      ? "dropped"
      : long && overlong === "error"
        ? "refused"
        : trained === 0
          ? "untrained"
          : ids.length > total
            ? "cut"
            : "kept";
  const shown = pieces(ids, kinds, tokenizer);
  if (answer) shown.push(answer);
  return { pieces: shown, trained, total, cut: ids.length - total, state };
}

/** Tokens with their text. Where several make up one character, the last of them shows it. */
function pieces(ids: Int32Array, kinds: readonly Piece["kind"][], tokenizer: Tokenizer): Piece[] {
  const decoder = tokenizer.streamDecoder();
  const out = Array.from(ids, (id, i): Piece => {
    const special = tokenizer.isSpecial(id);
    return { id, text: decoder.push(id), kind: kinds[i]!, special };
  });
  const rest = decoder.end();
  if (rest !== "" && out.length > 0) out[out.length - 1]!.text += rest;
  return out;
}
