/**
 * Small data sets for the notebooks. None of these tasks is in the embedded model's training text, so that fine-tuning has
 * something to teach: which radio messages are urgent, what a dialogue comes to in one line. visits.ts has talks that are a fraud or none.
 */
import { Random } from "../../../src/data/random.js";
import { adults, type Person, type Villager, villagers, visitors } from "./people.js";
import { type Context, capitalise, chance, pick, plural, render, sample } from "./render.js";
import { boats, days, objects, places, prices, strangers, verbs, weathers, words } from "./things.js";

export interface Labelled {
  readonly text: string;
  readonly label: string;
}

const spots = [
  "near Skerry Isle",
  "off the long pier",
  "at the mouth of the river",
  "north of the bay",
  "close to the rocks",
  "two miles from the lighthouse",
  "near the red buoy",
  "by the marsh",
  "off the north beach",
  "outside the harbour",
];

const urgent = [
  "we have water in the hull and [the pump is broken|it is rising|we cannot stop it].",
  "[there is a fire on deck|the stove has set fire to the cabin|our sail is burning]. we need help.",
  "{p} has fallen into the water and [we cannot see {p.him}|the current is strong].",
  "[the mast has broken|the rudder is gone|both oars are lost], and [the wind is driving us to the rocks|we are drifting out to sea].",
  "{p} is badly hurt. {p.he} [does not wake up|is bleeding|cannot move {p.his} arm]. send Ruth to the pier.",
  "we are lost in the fog and [can hear waves on rocks|do not know where the shore is].",
  "[we have hit a rock|we have run into {other}], and [the planks are open|the boat lies on its side].",
  "a small boat has turned over. [two people|three children|an old man and a dog] are in the water.",
  "our anchor does not hold, and [the pier is coming nearer|we are on a lee shore]. please send a rope at once.",
  "[the waves come over the deck|the storm has torn the sails], and {p} [cannot hold the boat any longer|is alone at the rudder].",
  "I see [{other} with a red flag|a light that goes on and off|a man waving on a rock]. somebody there needs help.",
  "we have been without water to drink for {n} days. {p} is very weak.",
  "{p} went out in a small boat {at} and has not come back. it is dark now.",
  "the water is up to our knees. [we cannot hold out much longer.|the boat is going down.]",
  "two men are on the rocks and the tide is coming in. they cannot swim.",
  "there is smoke below deck, and [we do not know where it comes from|the children are still down there].",
  "help! [the net has pulled {p} over the side|{p} is under the boat].",
  "we have no sail and no oars. the current takes us to the open sea.",
  "come quickly! [the oil has caught fire|the cabin is burning|the boat is going down].",
  "come quickly! {p} [is in great pain|has stopped breathing|lies on deck and does not move].",
  "{p} cannot swim and has [gone over the side|fallen from the mast into the sea].",
  "{p} has broken [an arm|a rib|{p.his} hand] and needs Ruth at once.",
  "in the thick fog we have lost [the way|the harbour|{other}]. [the rocks are near.|please ring the bell.]",
  "the sea is coming in through [the hull|the door|the planks], and we cannot close the hole.",
  "the wind is too strong. it [drives us onto the beach|has taken our sail|has turned the boat over].",
  "[help|please help]! [we are sinking|the boat is full of water|we are on the rocks].",
];

const routine = [
  "we will come in {time} with {n} baskets of herring.",
  "[is there a place for us at the fish quay?|may we tie up at the long pier?] we stay until {day}.",
  "the wind is [light|fresh] from the [north|south|east|west]. the weather is {weather}.",
  "please tell {p} that {p.his} {thing} is on board.",
  "we need [salt|rope|lamp oil|bread] for {n} days. can Abel have it ready?",
  "the mail is late. we are waiting for the tide.",
  "all is well on board. {p} [is cooking soup|is asleep|sends {p.his} greetings].",
  "[we are painting the hull|we are drying the sails|we are mending a net] and will be back on {day}.",
  "{p} has lost {p.his} {thing} over the side. it was old anyway.",
  "[a seal|a gull|a swan] has been following us since {day}. the children love it.",
  "[the fire in the stove is warm|there is a fire in the stove], the soup is hot, and nobody wants to come home.",
  "there was a little water in the hull, but [it is out again|the pump is working]. no help is needed.",
  "{p} fell into the water, but {p.he} is [back on deck and laughing|dry again and drinking tea].",
  "the fog is gone. we can see the lighthouse and go on.",
  "the broken mast has been mended. we will try it out on {day}.",
  "{p} has hurt {p.his} finger a little. it is nothing.",
  "we have anchored for the night. the anchor holds well.",
  "we practised with the red flag today. please do not send anybody.",
  "{p} was out in a small boat {at} and has come back with shells.",
  "two men are on the rocks and are catching fish. they like it there.",
  "there is smoke over the village. Lena has burned the bread again.",
  "we have bought a new sail and new oars from Gerta and Ines.",
  "the children want to see the lighthouse. may they come {time}?",
  "please open the store. we bring {n} sacks of corn for Hugo.",
  "the tide is low. we wait {spot} until we can come in.",
  "we have sold [all our lobsters|half of our fish|the old net] and are [on our way home|very happy].",
  "what is the price of {things} now? {p} would like to [buy|sell] one.",
  "it is a warm day. {p} [is swimming beside the boat|is asleep in the sun|is drinking tea on deck].",
  "we are well and everything is dry. [good night.|good wind to all of you.]",
  "the hull has been [closed|painted|mended], and everything is [dry|in order].",
  "we are coming home. please tell {p} to [light the stove|bake some bread|open the door].",
  "in the fog we heard the bell and found [the way|the harbour|the buoy]. thank you.",
  "there is a letter for {p} on board. {p.he} can fetch it {time}.",
];

/** Messages that are worded like none of those above: only the test rows have them. */
const urgentUnseen = [
  "something has made a hole in the planks, and the sea is coming in.",
  "come quickly! {p} is in the sea and cannot swim.",
  "the sail has caught fire, and it is near the oil.",
  "{p} has broken a leg and is in great pain.",
  "we have lost the way in thick fog, and there are rocks all around.",
  "the wind has taken our rudder. we are going onto the beach.",
];
const routineUnseen = [
  "{p} would like to know the price of {things} at the market.",
  "we have sold all our fish on Skerry Isle and are coming home.",
  "it is so warm that {p} went swimming. now we drink tea.",
  "the hole in the planks has been closed by Ines. everything is dry.",
  "please send {p} a letter from us: we are well and have good wind.",
  "we have lit the stove and are baking bread on board.",
  "the fog was thick, but we found the pier by the bell. good night.",
  "Clara can fetch the letters on {day}. there are {n} bags of them.",
];

/**
 * Radio messages to the harbour, "urgent" or "routine". Some routine ones speak of fire and water too.
 * @param unseen the share of messages whose wording no training row has.
 */
export function radio(random: Random, unseen = 0): Labelled {
  const label = random.nextInt(2) ? "urgent" : "routine";
  const thing = pick(
    random,
    objects.filter((o) => !/^(pair|bag|jar)/.test(o)),
  );
  const boat = chance(random, 0.6) ? pick(random, boats).name : pick(random, strangers);
  const context: Context = {
    boat,
    other: pick(
      random,
      [...boats.map((b) => b.name), ...strangers].filter((name) => name !== boat),
    ),
    spot: pick(random, spots),
    at: pick(random, ["this morning", "at noon", "before the storm", "with the tide"]),
    p: pick<Person>(random, [...adults, ...visitors]) as never,
    thing,
    things: plural(thing),
    day: pick(random, days)[0],
    weather: pick(random, weathers),
    time: pick(random, ["at noon", "before sunset", "in the evening", "with the tide"]),
    n: pick(random, ["two", "three", "four", "five", "six"]),
  };
  const opening = pick(random, [
    "this is {boat}.",
    "{boat} here, {spot}.",
    "harbour, this is {boat}. we are {spot}.",
    "{boat} calling the harbour.",
    "good day, {boat} here.",
  ]);
  const closing = pick(random, ["", "", "", "{boat}, over.", "over.", "please answer."]);
  const [known, fresh] = label === "urgent" ? [urgent, urgentUnseen] : [routine, routineUnseen];
  const body = pick(random, chance(random, unseen) ? fresh : known);
  return { text: render(random, [opening, body, closing].filter((part) => part !== "").join(" "), context), label };
}

export interface Dialogue {
  readonly id: string;
  readonly dialogue: string;
  readonly summary: string;
  readonly topic: string;
}

/** Scenes: who says what in turn (p begins), what it comes to, and its topic. */
const scenes: readonly { lines: readonly string[]; summary: string; topic: string }[] = [
  {
    lines: [
      "[good morning|hello], {q}. could you lend me your {thing}?",
      "[what do you need it for?|my {thing}? why?]",
      "mine [is broken|has been stolen], and I must finish my work on {day}.",
      "[all right, but bring it back.|take it. it is behind the door.]",
      "[I will. thank you!|you are a good friend.]",
    ],
    summary: "{p} borrows {an thing} from {q} until {day}.",
    topic: "borrowing",
  },
  {
    lines: [
      "{q}, could you lend me your {thing}?",
      "[I am sorry, I need it myself.|no. last time you broke it.]",
      "[only for an hour?|I would be very careful.]",
      "no, [ask {r}|go to {r}]. {r.he} has one too.",
      "[then I will do that.|very well.]",
    ],
    summary: "{q} does not lend {p} the {thing} and sends {p.him} to {r}.",
    topic: "borrowing",
  },
  {
    lines: [
      "will you come [with me|along] {place} on {day}?",
      "[what is there to do?|why there?]",
      "[we could look for {thing2}s.|{r} will be there too.]",
      "[good, I will come. at what time?|yes, I would like that. when?]",
      "{time}. [bring some bread.|and take a coat.]",
    ],
    summary: "{p} and {q} will go {place} on {day} {time}.",
    topic: "plans",
  },
  {
    lines: [
      "will you come [with me|along] {place} on {day}?",
      "I cannot. [{q.petName} is ill.|I must work {q.work}.]",
      "[that is a pity.|what a pity.] another day?",
      "[perhaps next week.|I will tell you.]",
    ],
    summary: "{q} cannot go {place} with {p} on {day}.",
    topic: "plans",
  },
  {
    lines: [
      "how much is this {thing}?",
      "{n} pence, [because you are a neighbour|and that is a good price].",
      "[that is too much.|so much?] I give you {m} pence.",
      "[you will be the end of me.|well, the day is nearly over.] all right, {m} pence.",
      "[agreed.|here is the money.]",
    ],
    summary: "{p} buys {an thing} from {q} for {m} pence.",
    topic: "trade",
  },
  {
    lines: [
      "how much is this {thing}?",
      "{n} pence.",
      "I give you {m} pence.",
      "[no. {n} pence, and not a penny less.|for that I would rather keep it.]",
      "[then keep it.|I will ask {r}.]",
    ],
    summary: "{p} does not buy the {thing}, because {q} wants {n} pence.",
    topic: "trade",
  },
  {
    lines: [
      "{q}, have you seen my {thing}?",
      "[no. when did you lose it?|where did you have it last?]",
      "[I had it {at}.|it was {at} on {day}.]",
      "then ask {r}. [I saw {r.him} {at} today.|{r.he} was there after you.]",
      "[good idea.|I will go at once.]",
    ],
    summary: "{p} has lost {p.his} {thing} {at} and will ask {r}.",
    topic: "something lost",
  },
  {
    lines: [
      "you look [pale|tired], {q}. what is wrong?",
      "[I have been coughing since {day}.|my back hurts since {day}.]",
      "you should [go to Ruth|see Ruth].",
      "[I have no time for that.|she will only tell me to rest.]",
      "then I will [bring you some soup|do your work today]. [go to bed.|and no word against it.]",
    ],
    summary: "{q} has been ill since {day}, and {p} helps {q.him}.",
    topic: "health",
  },
  {
    lines: [
      "did you hear it? {r} has [found|bought] {an thing} {at}.",
      "[no! who told you that?|really? since when?]",
      "[Clara told me.|everybody knows it.] it was on {day}.",
      "[what will {r.he} do with it?|I do not believe it.]",
      "[nobody knows.|go and ask {r.him}.]",
    ],
    summary: "{p} tells {q} that {r} got {an thing} {at} on {day}.",
    topic: "news",
  },
  {
    lines: [
      "{q}, your {q.pet} has eaten my {food}!",
      "{q.petName}? [that cannot be.|are you sure?]",
      "I saw it with my own eyes {at}.",
      "[I am sorry.|oh no.] I will [pay for it|bring you new {food} on {day}].",
      "[well, then it is all right.|good. but shut your door.]",
    ],
    summary: "{p} complains that {q.petName} has eaten {p.his} {food}, and {q} says sorry.",
    topic: "a complaint",
  },
];

/** A dialogue of two villagers with its summary in one line. */
export function dialogue(random: Random, id: number): Dialogue {
  const [p, q, r] = sample<Villager>(
    random,
    villagers.filter((v) => v.name !== "Ruth" && v.name !== "Clara"),
    3,
  ) as [Villager, Villager, Villager];
  const scene = pick(random, scenes);
  const place = pick(random, places);
  const m = 2 + random.nextInt(8);
  const context: Context = {
    p: p as never,
    q: q as never,
    r: r as never,
    thing: pick(
      random,
      objects.filter((o) => !o.startsWith("pair")),
    ),
    thing2: pick(random, ["shell", "mushroom", "stone", "feather"]),
    place: place.to,
    at: place.at,
    day: pick(random, days)[0],
    time: pick(random, ["at noon", "at sunrise", "after supper", "in the afternoon"]),
    n: m + 1 + random.nextInt(6),
    m,
    food: pick(random, ["fish", "cheese", "bread", "cake"]),
  };
  const lines = scene.lines.map((line, i) => `${(i % 2 === 0 ? p : q).name}: ${render(random, line, context)}`);
  return {
    id: `wrenmouth_${id}`,
    dialogue: lines.join("\n"),
    summary: render(random, scene.summary, context),
    topic: scene.topic,
  };
}

export interface Instruction {
  readonly instruction: string;
  readonly input: string;
  readonly output: string;
}

/** What some verbs need after them. */
const objectsOf: Readonly<Record<string, string>> = {
  catch: "fish",
  sell: "bread",
  buy: "candles",
  find: "shells",
  lose: "money",
  bring: "wood",
  build: "boats",
  write: "letters",
  take: "the ferry",
  give: "presents",
  make: "soup",
  know: "the way",
  tell: "stories",
  keep: "bees",
  mend: "nets",
  bake: "bread",
  carry: "sacks",
  help: "the neighbours",
  hear: "the bell",
  see: "the lighthouse",
  eat: "herring",
  drink: "tea",
};

/** Instructions with an input where one is needed, and what should come out. */
export function instruction(random: Random): Instruction {
  const v = pick(random, villagers);
  const place = pick(random, places);
  const [base, past] = pick(random, verbs);
  const rest = [
    base in objectsOf ? objectsOf[base] : undefined,
    pick(random, ["every morning", "on Monday", "together", "before sunset", "after supper"]),
  ]
    .filter((part) => part !== undefined)
    .join(" ");
  const thing = pick(random, objects);
  switch (random.nextInt(6)) {
    case 0:
      return {
        instruction: "Put the sentence into the past.",
        input: `They ${base} ${rest}.`,
        output: `They ${past} ${rest}.`,
      };
    case 1:
      return {
        instruction: "Make a question of the sentence.",
        input: capitalise(`${v.name} is ${place.at}.`),
        output: `Is ${v.name} ${place.at}?`,
      };
    case 2: {
      const items = sample(random, objects, 4);
      return {
        instruction: "Put the words in the order of the alphabet.",
        input: items.join(", "),
        output: [...items].sort().join(", "),
      };
    }
    case 3: {
      const [word, meaning] = pick(random, words);
      return { instruction: "Which word is meant?", input: capitalise(`${meaning}.`), output: capitalise(`${word}.`) };
    }
    case 4: {
      const item = pick(random, prices);
      return {
        instruction: "Write a line for the market board.",
        input: `${item.many}, ${item.pence} pence, ${v.name}`,
        output: `${capitalise(item.many)} at ${item.pence} pence each. Ask ${v.name}.`,
      };
    }
    default:
      return {
        instruction: "Write one sentence that tells who found what and where.",
        input: `${v.name}; ${thing}; ${place.at}`,
        output: render(random, "{name} found {an thing} {at}.", { name: v.name, thing, at: place.at }),
      };
  }
}

/** `count` different rows. */
export function distinct<Row>(
  count: number,
  seed: number,
  make: (random: Random, index: number) => Row,
  key: (row: Row) => string,
): Row[] {
  const random = new Random(seed);
  const rows = new Map<string, Row>();
  while (rows.size < count) {
    const row = make(random, rows.size);
    if (!rows.has(key(row))) rows.set(key(row), row);
  }
  return [...rows.values()];
}
