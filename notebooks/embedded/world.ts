/**
 * The small world that the embedded model knows: Wrenmouth, a harbour village of our own invention. Everything is generated
 * from a seed: the same seed gives the same texts on every machine.
 */
import { Random } from "../../src/data/random.js";
import { chat, type Message } from "./world/chats.js";
import { diary, letter, log, notice, portrait, recipe, scenery, talk, village } from "./world/pages.js";
import { aboutVillage, aboutVillager, passage } from "./world/questions.js";
import { story } from "./world/stories.js";

/** A row to train on: plain text or a conversation. */
export type Row = { readonly text: string } | { readonly messages: readonly Message[] };

/** The words of a row, without its format. */
export function plain(row: Row): string {
  return "text" in row ? row.text : row.messages.map((m) => m.content).join("\n");
}

/**
 * Rows until their text has reached a size; no row occurs twice.
 * @param characters how much text, about 5 million for the embedded model.
 */
export function* worldRows(seed: number, characters: number): Generator<Row> {
  const random = new Random(seed);
  const seen = new Set<string>();
  for (let size = 0; size < characters; ) {
    const row = oneRow(random);
    const key = plain(row);
    // Short questions have few wordings; beyond a point each counts only once more.
    if (seen.has(key) && key.length > 160) continue;
    seen.add(key);
    size += key.length;
    yield row;
  }
}

function oneRow(random: Random): Row {
  const kind = random.nextInt(100);
  if (kind < 62) return { messages: chat(random) };
  if (kind < 80) {
    const { title, text } = story(random);
    return { text: random.nextInt(2) ? `${title}\n${text}` : text };
  }
  return { text: page(random) };
}

function page(random: Random): string {
  switch (random.nextInt(11)) {
    case 0:
    case 1:
      return letter(random);
    case 2:
      return log(random);
    case 3:
      return Array.from({ length: 2 }, () => notice(random)).join("\n");
    case 4:
      return portrait(random);
    case 5:
      return scenery(random);
    case 6:
      return village(random);
    case 7: {
      const { name, text } = recipe(random);
      return `How to make ${name}\n${text}`;
    }
    case 8:
      return diary(random);
    case 9:
      return talk(random);
    default: {
      const asked = [aboutVillager(random), aboutVillage(random), passage(random)];
      return asked.map(({ question, answer }) => `Q: ${question}\nA: ${answer}`).join("\n");
    }
  }
}
