/**
 * Writes the small data sets of pictures to notebooks/data, as Arrow files with a column of PNG files. Run after the build:
 *   node dist/notebooks/embedded/vision/data.js
 */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Dataset } from "../../../src/index.js";
import { root } from "../prepare.js";
import { rowsOf } from "./measure.js";
import { type SeenRow, taught } from "./scenes.js";

/** Every bundled data set of pictures by file name. */
export async function pictureSets(): Promise<Record<string, SeenRow[]>> {
  const kinds = Object.keys(taught);
  const known = await Promise.all(kinds.map((kind, i) => rowsOf(kind, 203 + i, 12)));
  return {
    "counting-train.arrow": await rowsOf("count", 201, 320),
    "counting-test.arrow": await rowsOf("count", 202, 120),
    // Of each kind of question that the model has learned, in turn.
    "pictures-known.arrow": Array.from(
      { length: 12 * kinds.length },
      (_, i) => known[i % kinds.length]![Math.floor(i / kinds.length)]!,
    ),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  for (const [name, rows] of Object.entries(await pictureSets())) {
    await Dataset.from(rows).save(join(root, "notebooks", "data", name));
    const bytes = rows.reduce((sum, { image }) => sum + image.length, 0);
    console.log(`${name}: ${rows.length} rows, ${Math.round(bytes / 1000)} kB of pictures`);
  }
}
