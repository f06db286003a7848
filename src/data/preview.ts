/** What training will see of some rows: every token as trained, read only, or cut off. */
import { ConfigError, DataError } from "../errors.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Sight } from "../images/patches.js";
import { type FormatOptions, type Formatted, formatter, type Row } from "./format.js";
import { exampleWithImages, showsImages } from "./images.js";
import { type Example, exampleOf, IGNORED, type MaskOptions } from "./mask.js";
import { packExamples } from "./pack.js";
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
  /** Packs the first `rows` × 8 rows, as a run would pack all of them. */
  packing?: boolean;
}

/** What a preview needs of a model. */
export interface Previewed {
  readonly tokenizer: Tokenizer;
  readonly config: { readonly maxPositions: number };
  readonly module?: { readonly sight: Sight | undefined };
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
  const read = formatter(options as FormatOptions);
  const shown: PreviewExample[] = [];
  for (const row of rows) {
    if (shown.length === (packing ? 8 * count : count)) break;
    const index = shown.length;
    const formatted = await read(row as Row, index);
    const make = (given: Formatted): Example => exampleOf(given, tokenizer, options);
    const example = showsImages(formatted)
      ? await exampleWithImages(formatted, row, model.module?.sight, `Row ${index}`, make)
      : make(formatted);
    shown.push(describeExample(example, index, tokenizer, maxLength, overlong));
  }
  if (shown.length === 0) throw new DataError("preview: the data set has no rows; check its path, split or filter.");
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

function describeExample(
  { ids, labels }: Example,
  index: number,
  tokenizer: Tokenizer,
  maxLength: number,
  overlong: string,
): PreviewExample {
  const long = ids.length > maxLength;
  const total = long && overlong !== "drop" ? maxLength : ids.length;
  const kinds = Array.from(ids, (_, i): Piece["kind"] => {
    if (i >= total) return "cut";
    return i > 0 && labels[i] !== IGNORED ? "trained" : "context"; // nothing precedes the first token
  });
  const trained = kinds.filter((kind) => kind === "trained").length;
  const state =
    long && overlong === "drop"
      ? "dropped"
      : long && overlong === "error"
        ? "refused"
        : trained === 0
          ? "untrained"
          : long
            ? "cut"
            : "kept";
  return { index, pieces: pieces(ids, kinds, tokenizer), trained, total, cut: ids.length - total, state };
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
