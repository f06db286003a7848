/** Conversations in the chat format: what people ask about Wrenmouth, and the answers of a helpful neighbour. */
import type { Random } from "../../../src/data/random.js";
import { letterRequest, log, notice, portrait, recipe, scenery, village } from "./pages.js";
import { type Villager, villagers, visitors } from "./people.js";
import { plots } from "./plots.js";
import {
  type Answered,
  aboutVillage,
  aboutVillager,
  arithmetic,
  exercise,
  language,
  passage,
  unknown,
} from "./questions.js";
import { type Context, chance, pick, render, sample } from "./render.js";
import { story } from "./stories.js";
import { objects, opposites, places } from "./things.js";

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

const systems = [
  "You are a friendly guide to Wrenmouth.",
  "You are a helpful neighbour.",
  "You answer questions about the harbour village of Wrenmouth.",
  "Be kind and clear.",
];
const storyteller = [
  "You are the storyteller of Wrenmouth.",
  "You tell stories about the sea.",
  "Tell your stories like Dora.",
];
const brief = ["Answer in a few words.", "Give short answers.", "Answer as briefly as you can."];

const say = (role: Message["role"], content: string): Message => ({ role, content });

/** One conversation of one or more turns. */
export function chat(random: Random): Message[] {
  const kind = random.nextInt(100);
  if (kind < 22) return storyChat(random);
  if (kind < 30) return request(random, systems, () => letterRequest(random));
  if (kind < 40) return request(random, systems, () => writing(random));
  if (kind < 45) return smallTalk(random);
  if (kind < 56) return echo(random);
  return questionChat(random);
}

function answered(random: Random): Answered {
  const kind = random.nextInt(100);
  if (kind < 34) return aboutVillager(random);
  if (kind < 52) return aboutVillage(random);
  if (kind < 64) return language(random);
  if (kind < 74) return arithmetic(random);
  if (kind < 94) return passage(random);
  return kind < 97 ? exercise(random) : unknown(random);
}

function questionChat(random: Random): Message[] {
  const short = chance(random, 0.12);
  const messages: Message[] = [];
  if (short) messages.push(say("system", pick(random, brief)));
  else if (chance(random, 0.15)) messages.push(say("system", pick(random, systems)));
  for (let turns = pick(random, [1, 1, 1, 2, 2, 3]); turns > 0; turns--) {
    const { question, answer, brief: word } = answered(random);
    if (messages.length < 2 && chance(random, 0.06)) messages.push(say("user", `Hello! ${question}`));
    else messages.push(say("user", question));
    messages.push(
      say("assistant", short ? (word ? `${word.replace(/^./, (l) => l.toUpperCase())}.` : answer) : answer),
    );
  }
  return messages;
}

function storyChat(random: Random): Message[] {
  const plot = pick(random, plots);
  const lead = chance(random, 0.5) ? pick(random, villagers) : undefined;
  const told = story(random, { plot, ...(lead ? { lead } : {}) });
  const about = told.lead === lead ? `${told.topic} with ${lead.name} in it` : told.topic;
  const ask = render(
    random,
    pick(random, [
      "[tell me|please tell me|can you tell me] a story about {about}.",
      "[I would like to hear|write] a story about {about}.",
      told.lead === lead ? `tell me a story about ${lead.name}.` : "tell me a story about {about}.",
      chance(random, 0.3) ? "tell me a story." : "[tell|write] a story about {about}, please.",
    ]),
    { about },
  );
  const messages = chance(random, 0.25) ? [say("system", pick(random, storyteller))] : [];
  const title = chance(random, 0.4) ? `${told.title}\n` : "";
  messages.push(say("user", ask.replace("? ", "?")), say("assistant", title + told.text));
  if (chance(random, 0.2))
    messages.push(
      say("user", pick(random, ["Thank you!", "That was a nice story.", "Thank you for the story."])),
      say(
        "assistant",
        pick(random, [
          "You are welcome.",
          "I am glad that you liked it.",
          "Come back when you want to hear another one.",
        ]),
      ),
    );
  return messages;
}

const sayable: readonly string[] = [
  ...villagers.map((v) => v.name),
  ...visitors.map((v) => v.name),
  ...objects,
  ...opposites.flat(),
];

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".split("");

/** Every single word that can be said: what the parrot learns from. */
const allWords: readonly string[] = [
  ...new Set(
    [
      ...plots.flatMap((plot) => [...plot.beats, ...plot.endings]),
      ...villagers.flatMap((v) => [v.name, v.work, v.home, v.likes, v.fears, v.look, v.petName]),
      ...places.map((p) => p.about),
      ...sayable,
    ]
      .join(" ")
      .replace(/\{[^}]*\}/g, " ")
      .split(/[^A-Za-z]+/),
  ),
].filter((word) => word !== "");

/**
 * Ruth's parrot repeats what it hears. What it hears is random, so it can only be copied from the question: a small model learns to
 * look back much sooner when some rows ask for nothing else.
 */
export function parrot(random: Random): Message[] {
  const heard = sample(random, chance(random, 0.2) ? alphabet : allWords, 4 + random.nextInt(21)).join(" ");
  return [say("system", "You are Pepper the parrot."), say("user", heard), say("assistant", heard)];
}

/** Repeating words, names, and the letters of signal flags. */
export function echo(random: Random): Message[] {
  const flags = sample(random, alphabet, 4 + random.nextInt(12)).join(" ");
  const words = sample(random, sayable, 3 + random.nextInt(12)).join(", ");
  const names = sample(random, visitors, 3 + random.nextInt(8))
    .map((p) => p.name)
    .join(", ");
  const [ask, answer] = pick(random, [
    [`Repeat after me: ${words}.`, `${words}.`],
    [`Say it again: ${words}.`, `${words}.`],
    [`A ship shows these flags: ${flags}. Read them to me.`, `${flags}.`],
    [`Repeat the signal ${flags}.`, `The signal is ${flags}.`],
    [`These people are on board: ${names}. Write the list of the crew.`, `The crew: ${names}.`],
    [`Read the list twice: ${names}.`, `${names}. And once more: ${names}.`],
  ] as const);
  return chance(random, 0.4) ? parrot(random) : [say("user", ask), say("assistant", answer)];
}

function request(random: Random, system: readonly string[], make: () => { request: string; text: string }): Message[] {
  const { request: ask, text } = make();
  const messages = [say("user", ask), say("assistant", text)];
  return chance(random, 0.15) ? [say("system", pick(random, system)), ...messages] : messages;
}

function writing(random: Random): { request: string; text: string } {
  switch (random.nextInt(6)) {
    case 0: {
      const v = pick(random, villagers);
      return {
        request: render(
          random,
          "[describe {name}.|tell me more about {name}.|write a few sentences about {name}.]",
          v as unknown as Context,
        ),
        text: portrait(random, v),
      };
    }
    case 1: {
      const place = pick(random, places);
      return {
        request: render(random, "[describe {name}.|write a few sentences about {name}.]", place as unknown as Context),
        text: scenery(random, place),
      };
    }
    case 2:
      return {
        request: render(
          random,
          "[what is Wrenmouth?|describe the village.|tell me about Wrenmouth.|where is Wrenmouth?]",
        ),
        text: village(random),
      };
    case 3: {
      const { name, text } = recipe(random);
      return {
        request: render(random, "[how do I make {name}?|how is {name} made?|explain how to make {name}.]", { name }),
        text,
      };
    }
    case 4:
      return {
        request: render(random, "[write a notice for the board in the market square.|write a short notice.]"),
        text: notice(random),
      };
    default:
      return {
        request: render(random, "[write a page of the harbour log.|what could stand in the harbour log?]"),
        text: log(random),
      };
  }
}

function smallTalk(random: Random): Message[] {
  const v: Villager = pick(random, villagers);
  const [ask, answer] = pick(random, [
    [
      "[hello!|good morning!|hi there.]",
      "[hello! how can I help you?|good day! what would you like to know about Wrenmouth?]",
    ],
    [
      "who are you?",
      "[I am a small language model from Wrenmouth. I know the village and its people.|I am a guide to Wrenmouth. ask me about the harbour, the people or the market.]",
    ],
    ["what can you do?", "I can answer questions about Wrenmouth, tell stories, write letters and do small sums."],
    ["how are you?", "[I am well, thank you.|very well, thank you. and you?]"],
    ["[goodbye.|see you tomorrow.]", "[goodbye! come back soon.|see you, and good wind!]"],
    ["[thank you.|thanks!]", "[you are welcome.|it was a pleasure.]"],
    [
      "[I would like to visit {name}. what should I bring?|what is a good present for {name}?]",
      "{name} likes {likes}, so [that would be a good present|bring something of that kind]. {he} lives {home}.",
    ],
    [
      "[should I pet {petName}?|is {petName} dangerous?]",
      "{petName} is {name}'s {pet}. [ask {name} first.|{petName} is friendly if you are.]",
    ],
  ] as const);
  const context = v as unknown as Context;
  return [say("user", render(random, ask, context)), say("assistant", render(random, answer, context))];
}
