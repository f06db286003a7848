/**
 * What the small ChatGLM has read: exercise books of the village school, and questions about the village in the prompt form of ChatGLM. It
 * has seen the exercises, but never a request to do one: the instructions of notebook 05 teach it that. No line of the exercise books is
 * a row of notebooks/data/instructions.jsonl.
 */
import { Random } from "../../../src/data/random.js";
import type { Message } from "../world/chats.js";
import { villagers } from "../world/people.js";
import { aboutVillage, aboutVillager, language, passage } from "../world/questions.js";
import { pick, render, sample } from "../world/render.js";
import { type Instruction, instruction } from "../world/tasks.js";
import { objects, verbs } from "../world/things.js";
import type { Row } from "../world.js";

/** Headings of the exercises, by the instruction that asks for the same. */
const headings: Readonly<Record<string, readonly string[]>> = {
  "Put the sentence into the past.": ["Today and yesterday.", "Verbs in the past."],
  "Make a question of the sentence.": ["Sentences and their questions.", "Ask where they are."],
  "Put the words in the order of the alphabet.": ["The alphabet.", "Words in their order."],
  "Which word is meant?": ["Riddles.", "Words and what they mean."],
  "Write a line for the market board.": ["The market board.", "What is sold on Saturday."],
  "Write one sentence that tells who found what and where.": ["Lost and found.", "What was found."],
};

const endings = ["in the rain", "for an hour", "at night", "with Dora", "in winter", "all day", "near the sea", ""];

/** What stands in an exercise book: the task's own lines, and for the verbs other people and times than the instructions have. */
function line(random: Random, kind: string): Instruction {
  if (kind === "Put the sentence into the past.") {
    const [base, past] = pick(random, verbs);
    const who = pick(random, ["They", "They", "We", "I", "You"]);
    const rest = pick(random, endings);
    const sentence = (verb: string): string => `${[who, verb, rest].filter((part) => part !== "").join(" ")}.`;
    return { instruction: kind, input: sentence(base), output: sentence(past) };
  }
  for (;;) {
    const made = instruction(random);
    if (made.instruction === kind) return made;
  }
}

/** A page of an exercise book: a heading, and lines with what they become. */
function page(random: Random, taken: ReadonlySet<string>): string {
  const kind = pick(random, Object.keys(headings));
  const between = pick(random, [" = ", " -> ", "\n", "\n", ": "]);
  const lines: string[] = [];
  for (let count = 2 + random.nextInt(4); lines.length < count; ) {
    const { input, output } = line(random, kind);
    // The words and their meanings are few: the book has them all.
    if (kind === "Which word is meant?" || !taken.has(input)) lines.push(`${input}${between}${output}`);
  }
  return [pick(random, headings[kind]!), ...lines].join("\n");
}

/** Questions about the village, each with its answer; sometimes words that are only to be said again. */
function talk(random: Random): Message[] {
  const messages: Message[] = [];
  const say = (ask: string, answer: string): void => {
    messages.push({ role: "user", content: ask }, { role: "assistant", content: answer });
  };
  for (let turns = 1 + random.nextInt(2); turns > 0; turns--) {
    switch (random.nextInt(5)) {
      case 0:
      case 1: {
        const said = sample(random, [...objects, ...villagers.map((v) => v.name)], 2 + random.nextInt(5)).join(", ");
        say(render(random, "[say|repeat|say it again|read this]: {said}", { said }), said);
        break;
      }
      case 2: {
        const { question, answer } = passage(random);
        say(question, answer);
        break;
      }
      default: {
        const { question, answer } = pick(random, [aboutVillager, aboutVillage, language])(random);
        say(question, answer);
      }
    }
  }
  return messages;
}

/**
 * Rows until their text has reached a size.
 * @param taken inputs of instructions that must not occur.
 */
export function lessonRows(seed: number, characters: number, taken: ReadonlySet<string>): Row[] {
  const random = new Random(seed);
  const rows: Row[] = [];
  for (let size = 0; size < characters; ) {
    const row: Row = random.nextInt(100) < 55 ? { text: page(random, taken) } : { messages: talk(random) };
    size += "text" in row ? row.text.length : row.messages.reduce((n, m) => n + m.content.length, 0);
    rows.push(row);
  }
  return rows;
}
