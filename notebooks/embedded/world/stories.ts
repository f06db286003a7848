/** Stories: a plot, a cast whose facts stay true, and one wording of each beat. */
import type { Random } from "../../../src/data/random.js";
import { adults, children, type Person, type Villager, villagers, visitors } from "./people.js";
import { type Plot, plots } from "./plots.js";
import { chance, pick, render, sample } from "./render.js";
import { boats, days, feasts, objects, places, weathers } from "./things.js";

export interface Story {
  readonly title: string;
  readonly topic: string;
  readonly lead: Person;
  readonly text: string;
}

/** Places in the open, where something can be lost and found. */
const outside = places.filter((p) => /pier|quay|square|Gull Hill|marsh|beach|woods/.test(p.name));
const inside = places.filter((p) => /Anchor|bakery|mill|school|loft|shop|boatyard|forge/.test(p.name));

const openers = [
  "",
  "",
  "this happened in Wrenmouth, not long ago.",
  "here is a story from Wrenmouth.",
  "people in Wrenmouth still tell this story.",
  "this is the story that Dora tells when the evenings are long.",
];

/** One story. @param wanted its plot and lead, where they are asked for. */
export function story(random: Random, wanted: { plot?: Plot; lead?: Villager } = {}): Story {
  const suits = (plot: Plot, lead: Villager): boolean =>
    (plot.lead === "any" || (plot.lead === "child") === lead.age < 18) && !fixedNames(plot).has(lead.name);
  const plot = wanted.plot ?? pick(random, wanted.lead ? plots.filter((p) => suits(p, wanted.lead!)) : plots);
  const fixed = fixedNames(plot);
  const free = villagers.filter((v) => !fixed.has(v.name));
  const leads = free.filter((v) => suits(plot, v));
  const a = wanted.lead && suits(plot, wanted.lead) ? wanted.lead : pick(random, leads);
  const [b, c] = sample(
    random,
    free.filter((v) => v !== a && v.age >= 18),
    2,
  ) as [Villager, Villager];
  const owner = pick(
    random,
    adults.filter((v) => v !== a && v !== b && /cat|dog|goat|goose|donkey|gull|duck/.test(v.pet)),
  );
  const [thing, gift] = sample(random, objects, 2) as [string, string];
  const [here, there] = [pick(random, inside), pick(random, outside)];
  const context = {
    a,
    b,
    c,
    owner: owner.name,
    beast: owner.pet,
    v: pick(random, visitors),
    thing,
    gift,
    here,
    there,
    boat: pick(random, boats).name,
    pet: a.pet,
    petName: a.petName,
    petLine: `${a.petName} the ${a.pet} ${pick(random, ["watched and waited.", "was always there.", "did not seem impressed."])}`,
    weather: pick(random, weathers),
    day: pick(random, days)[0],
    feast: pick(random, feasts)[0].replace(/^the /, ""),
    animal: pick(random, ["seal", "gull", "otter", "heron", "fox", "owl", "swan"]),
    n: pick(random, ["two", "three", "four", "five", "six", "seven"]),
  };
  const beats = plot.beats.filter((beat) => !beat.startsWith("?") || chance(random, 0.5));
  const parts = [...beats.map((beat) => beat.replace(/^\?/, "")), pick(random, plot.endings)];
  const opener = pick(random, openers);
  const introduction = chance(random, 0.35) ? `${introduce(random, a)} ` : "";
  const paragraphs = parts.map((part) => render(random, part, context));
  paragraphs[0] = `${opener ? `${render(random, opener)} ` : ""}${introduction}${paragraphs[0]}`;
  return {
    title: render(random, plot.title, context).replace(
      /(^| )([a-z])(?=[a-z]{3,})/g,
      (_, s: string, l: string) => s + l.toUpperCase(),
    ),
    topic: render(random, plot.topic, context).replace(/^./, (l) => l.toLowerCase()),
    lead: a,
    text: joinParagraphs(random, paragraphs),
  };
}

/** A sentence or two that say who somebody is. */
export function introduce(random: Random, v: Villager): string {
  const kind = v.age < 18 ? `[a ${v.he === "he" ? "boy" : "girl"}|a child]` : "{an trade}";
  return render(
    random,
    pick(random, [
      `{name} was ${kind} [in Wrenmouth|of our village] with {look}.`,
      `{name}, {kin}, was ${v.age < 18 ? "{age} years old" : "{an trade}"}. {he} was {trait}.`,
      "{name} lived {home}, together with {petName} the {pet}.",
      `everybody knew {name}. {he} was {trait} and {did} {work}.`,
    ]),
    v as never,
  );
}

// Names that a plot's own sentences mention: these people have their part already.
function fixedNames(plot: Plot): Set<string> {
  const text = [...plot.beats, ...plot.endings].join(" ");
  return new Set(villagers.map((v) => v.name).filter((name) => new RegExp(`\\b${name}\\b`).test(text)));
}

function joinParagraphs(random: Random, parts: readonly string[]): string {
  let text = parts[0] ?? "";
  for (const part of parts.slice(1)) text += (chance(random, 0.3) ? "\n" : " ") + part;
  return text;
}

export { children };
