/**
 * How often the embedded model that sees is right on pictures that it was not trained on, by kind of question:
 *   node dist/notebooks/embedded/vision/measure.js [FOLDER] [PICTURES]
 */
import { pathToFileURL } from "node:url";
import { Random } from "../../../src/data/random.js";
import { loadModel, type Model } from "../../../src/index.js";
import { most, picture, type SeenRow, scene, taught, untaught } from "./scenes.js";

/** So many rows of one kind of question, each of a picture of its own. */
export async function rowsOf(kind: string, seed: number, count: number): Promise<SeenRow[]> {
  const ask = { ...taught, ...untaught }[kind]!;
  const random = new Random(seed);
  const rows: SeenRow[] = [];
  while (rows.length < count) {
    const seen = scene(random, 1 + random.nextInt(most));
    const asked = ask(random, seen);
    if (asked) rows.push({ image: await picture(seen), ...asked });
  }
  return rows;
}

/** The conversation of a row: what is asked, and the answer where it is to be trained. */
export function messages({
  image,
  question,
}: Pick<SeenRow, "image" | "question">): { role: string; content: object[] }[] {
  return [
    {
      role: "user",
      content: [
        { type: "image", image },
        { type: "text", text: question },
      ],
    },
  ];
}

/** Share of rows whose greedy answer is the expected one, word by word. */
export async function exactMatch(model: Model, rows: readonly SeenRow[], wrong?: string[]): Promise<number> {
  let right = 0;
  for (const row of rows) {
    const answer = await model.chat(messages(row), { maxNewTokens: 40 });
    if (answer === row.answer) right++;
    else wrong?.push(`${row.question} ${answer} (${row.answer})`);
  }
  return right / rows.length;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { embeddedModel } = await import("../../../src/index.js");
  const model = await loadModel(process.argv[2] ?? embeddedModel("vision"), { progress: false });
  for (const kind of Object.keys({ ...taught, ...untaught })) {
    const wrong: string[] = [];
    const share = await exactMatch(model, await rowsOf(kind, 7000, Number(process.argv[3] ?? 100)), wrong);
    console.log(`${kind}: ${(100 * share).toFixed(1)} %  ${wrong.slice(0, 3).join(" | ")}`);
  }
  model.dispose();
}
