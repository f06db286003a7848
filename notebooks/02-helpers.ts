/** What notebook 02 runs by `%run`: reading the rows, the prompt, and the settings of the recipe. */
import { Dataset, type LoraOptions, loadDataset, type QuantizeOptions, type TrainOptions, table } from "tunebook";

/** A text, whether it is a fraud, and the label that it came with. */
export interface Talk {
  readonly [column: string]: unknown;
  readonly text: string;
  readonly label: "honest" | "fraud";
  readonly kind: string;
}

/** Which columns of a file hold the text and its label, and which label means that nothing is wrong. */
export interface Columns {
  readonly text: string;
  readonly label: string;
  readonly honest: string;
  /** Names of the columns, comma between them, for a file whose first line is data; "" where it names them. */
  readonly header: string;
}

export const labels: readonly ["honest", "fraud"] = ["honest", "fraud"];

/** Reads a file; a text that came before is left out, so that none is both trained on and measured on. */
export async function readTalks(file: string, columns: Columns): Promise<Dataset<Talk>> {
  const bare = columns.header === "" ? {} : { columns: columns.header.split(","), quote: false as const };
  const rows = await loadDataset<Record<string, unknown>>(file, bare);
  const talks = new Map<string, Talk>();
  for (const row of rows) {
    const [text, kind] = [String(row[columns.text]).trim(), String(row[columns.label])];
    if (!talks.has(text)) talks.set(text, { text, label: kind === columns.honest ? "honest" : "fraud", kind });
  }
  return Dataset.from([...talks.values()]);
}

/** `count` rows (0: all); with `balanced`, half of them frauds, so that few rows teach both. */
export function some(rows: Dataset<Talk>, count: number, balanced: boolean, seed: number): Dataset<Talk> {
  const mixed = rows.shuffle(seed);
  if (count === 0 && !balanced) return mixed;
  if (!balanced) return mixed.slice(0, count);
  const parts = labels.map((label) => mixed.filter((row) => row.label === label));
  const each = Math.min(count === 0 ? rows.length : Math.ceil(count / 2), ...parts.map((part) => part.length));
  return parts[0]!.slice(0, each).concat(parts[1]!.slice(0, each)).shuffle(seed);
}

/** The question, and its answer in one word. */
export const format = (row: Talk): { prompt: string; completion: string } => ({
  prompt: `${row.text}\n\nIs this honest, or is it a fraud? It is`,
  completion: ` ${row.label}`,
});

/** 4 bits, products in bfloat16, no double quantisation. */
export const inFourBits: QuantizeOptions = { type: "nf4", compute: "bfloat16", doubleQuant: false };

/** The recipe's adapter. Its text names no layers: here all linear ones have one. */
export const loraConfig = (seed: number): LoraOptions => ({
  rank: 16,
  alpha: 32,
  dropout: 0.2,
  target: "all-linear",
  seed,
});

/** What the recipe says of training; sizes and rates are the notebook's. */
export const recipe: TrainOptions<Talk> = {
  format,
  optimizer: "paged_adamw_32bit",
  schedule: "linear",
  keepBest: true,
};

/** A table whose columns, but for the first, hold figures. */
export function figureTable(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
  title?: string,
): ReturnType<typeof table> {
  const align = Object.fromEntries(columns.slice(1).map((column) => [column, "right" as const]));
  return table(columns, rows, { align, ...(title === undefined ? {} : { title }) });
}

/** What became of the rows: frauds are the positive ones. */
export interface Counts {
  readonly tn: number;
  readonly fp: number;
  readonly fn: number;
  readonly tp: number;
}

/** Rows: what is, columns: what was said. */
export const matrixOf = ({ tn, fp, fn, tp }: Counts): number[][] => [
  [tn, fp],
  [fn, tp],
];

/** Counts and the rates that follow from them, one run beside the other. */
export function countTable(runs: Readonly<Record<string, Counts>>, title: string): ReturnType<typeof table> {
  const share = (part: number, whole: number): string => (whole === 0 ? 0 : part / whole).toFixed(4);
  const lines: Record<string, (c: Counts) => string> = {
    tn: ({ tn }) => tn.toLocaleString("en"),
    fp: ({ fp }) => fp.toLocaleString("en"),
    fn: ({ fn }) => fn.toLocaleString("en"),
    tp: ({ tp }) => tp.toLocaleString("en"),
    precision: ({ fp, tp }) => share(tp, tp + fp),
    recall: ({ fn, tp }) => share(tp, tp + fn),
    f1: ({ fp, fn, tp }) => share(2 * tp, 2 * tp + fp + fn),
    accuracy: ({ tn, fp, fn, tp }) => share(tn + tp, tn + fp + fn + tp),
  };
  const rows = Object.entries(lines).map(([name, of]) => [name, ...Object.values(runs).map(of)]);
  return figureTable(["metric", ...Object.keys(runs)], rows, title);
}
