/** Data sets that do not fit into memory: rows of files, batch by batch. */
import { DataError } from "../errors.js";
import { type AnyRow, Dataset } from "./dataset.js";
import { tableFromRecords } from "./dataset-build.js";
import { formatOf } from "./dataset-files.js";
import { dataFiles, type LoadDatasetOptions } from "./dataset-load.js";
import { jsonLines } from "./read-json.js";
import { parquetGroups } from "./read-parquet.js";

export interface StreamDatasetOptions extends LoadDatasetOptions {
  /** Rows of one batch; default 1,000. */
  batch?: number;
}

/**
 * Reads JSON Lines (packed too) and Parquet, from the same paths and names as `loadDataset`, without holding more than one batch (of
 * Parquet: one row group). Each batch finds the types of its columns by itself. Leaving the loop closes the file.
 *
 * @throws DataError naming the file and line of what cannot be read, or a format that is read whole only.
 * @example for await (const batch of streamDataset("large.jsonl.gz")) total += batch.length;
 */
export async function* streamDataset<Row extends object = AnyRow>(
  path: string,
  options: StreamDatasetOptions = {},
): AsyncGenerator<Dataset<Row>, void, undefined> {
  const { batch = 1000 } = options;
  if (!Number.isInteger(batch) || batch < 1)
    throw new DataError(`streamDataset: batch must be a whole number of at least 1, got ${batch}`);
  let rows: unknown[] = [];
  let places: string[] = [];
  const take = (): Dataset<Row> => {
    const at = places;
    const table = tableFromRecords(rows, (row) => at[row] ?? path);
    rows = [];
    places = [];
    return Dataset.from(table) as Dataset<Row>;
  };
  // The whole may be as large as it likes; a packed file's ratio is still bounded.
  const budget = { maxBytes: Number.MAX_SAFE_INTEGER, ...options };
  for (const file of await dataFiles(path, options)) {
    for await (const { row, where } of records(file, options, budget)) {
      rows.push(row);
      places.push(where);
      if (rows.length === batch) yield take();
    }
  }
  if (rows.length > 0) yield take();
}

async function* records(
  file: string,
  options: StreamDatasetOptions,
  budget: StreamDatasetOptions,
): AsyncGenerator<{ row: unknown; where: string }, void, undefined> {
  const format = options.format ?? formatOf(file);
  if (format === "jsonl") {
    for await (const { row, line } of jsonLines(file, budget)) yield { row, where: `${file}, line ${line}` };
  } else if (format === "parquet") {
    let count = 0;
    for await (const group of parquetGroups(file, budget))
      for (const row of group) yield { row, where: `${file}, row ${count++}` };
  } else {
    throw new DataError(`${file}: ${format} is not read in batches; expected JSON Lines or Parquet. Use loadDataset.`);
  }
}
