import { type Format, formatter } from "../data/format.js";
import { encodeConversation, type Prompt } from "../data/images.js";
import { DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Sight } from "../images/patches.js";
import type { EvaluateOptions } from "./evaluate.js";
import type { Metrics } from "./metrics.js";
import { type RougeName, rouge } from "./rouge.js";
import { cutAt, stopsOf } from "./stop-text.js";
import type { GeneratedRows } from "./stream.js";

/** What a row asks for: the prompt's ids, and the texts that would be right. */
interface Task extends Prompt {
  references: string[];
}

/** Continues prompts given as ids; see `Model.generateIds`. */
export type GenerateIds = (
  prompts: readonly (readonly number[])[],
  options: Omit<EvaluateOptions, "metrics" | "format"> & GeneratedRows,
) => Promise<string[]>;

/**
 * Generates for the prompt of every row and compares with its completion (of messages: the last answer) up to the first stop string;
 * spaces around are not compared.
 *
 * @throws DataError for a row that has nothing to compare with.
 */
export async function generationMetrics(
  rows: readonly Record<string, unknown>[],
  tokenizer: Tokenizer,
  options: EvaluateOptions,
  generate: GenerateIds,
  onDone: (done: number) => void,
  sight?: Sight,
): Promise<Partial<Metrics> & { columns: Record<string, unknown>[] }> {
  const { metrics, stemmer = false, maxNewTokens = metrics.includes("rouge") ? 128 : 64 } = options;
  const tasks: Task[] = [];
  for (const [i, row] of rows.entries()) tasks.push(await taskOf(row, tokenizer, options, i, sight));
  const texts = await generate(
    tasks.map((task) => task.ids),
    { ...options, maxNewTokens, onDone, pictures: tasks.map((task) => task.pictures) },
  );
  const { strings } = stopsOf(options.stop, []);
  const predictions = texts.map((text, i) => ({
    prediction: text.trim(),
    references: tasks[i]!.references.map((reference) => cutAt(reference, strings).trim()),
  }));
  const columns = predictions.map(
    (p): Record<string, unknown> => ({ prediction: p.prediction, reference: p.references[0] }),
  );
  const values: Partial<Metrics> & { columns: typeof columns } = { predictions, columns };
  if (metrics.includes("exactMatch"))
    values.exactMatch = mean(predictions, (p, i) => {
      columns[i]!.exactMatch = p.references.includes(p.prediction);
      return +p.references.includes(p.prediction);
    });
  if (metrics.includes("rouge")) {
    const scores = predictions.map((p) => rouge(p.prediction, p.references, { stemmer }));
    for (const name of ["rouge1", "rouge2", "rougeL", "rougeLsum"] satisfies RougeName[])
      values[name] = mean(scores, (score, i) => {
        columns[i]![name] = score[name].f1;
        return score[name].f1;
      });
  }
  return values;
}

function mean<T>(items: readonly T[], value: (item: T, index: number) => number): number {
  return items.reduce((sum, item, index) => sum + value(item, index), 0) / items.length;
}

async function taskOf(
  row: Record<string, unknown>,
  tokenizer: Tokenizer,
  options: EvaluateOptions,
  index: number,
  sight: Sight | undefined,
): Promise<Task> {
  const formatted = await formatter({
    ...(options.format ? { format: options.format as Format } : {}),
    ...(options.textField === undefined ? {} : { textField: options.textField }),
  })(row, index);
  const given = options.references?.(row);
  const references = (own: string): string[] =>
    given === undefined ? [own] : typeof given === "string" ? [given] : [...given];
  let task: Task | undefined;
  if (typeof formatted === "object" && "prompt" in formatted) {
    const ids = tokenizer.encode(formatted.prompt, { addSpecialTokens: "before" });
    task = { ids, pictures: [], references: references(formatted.completion) };
  } else if (typeof formatted === "object" && "at" in formatted) {
    const answer = formatted.at(-1) as Message;
    if (answer.role === "assistant" && formatted.length > 1) {
      const prompt = await encodeConversation(tokenizer, formatted.slice(0, -1), sight, row);
      task = { ...prompt, references: references(String(answer.content)) };
    }
  }
  if (!task || task.references.length === 0) {
    throw new DataError(
      `evaluate: row ${index} must give { prompt, completion }, or messages that end with the assistant's, for this metric; use format: (row) => ({ prompt: …, completion: … }).`,
    );
  }
  return task;
}
