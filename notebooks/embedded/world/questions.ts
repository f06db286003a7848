/** Questions about the facts of the world, with their answers; and questions about a passage that is given. */
import type { Random } from "../../../src/data/random.js";
import { type Person, type Villager, villagers, visitors } from "./people.js";
import { type Context, list, pick, render, sample } from "./render.js";
import { boats, days, feasts, objects, opposites, places, prices, times, verbs, weathers, words } from "./things.js";

export interface Answered {
  readonly question: string;
  readonly answer: string;
  /** The answer in a word or two, where there is one. */
  readonly brief?: string;
}

const about: readonly (readonly [question: string, answer: string, brief: string])[] = [
  [
    "[what does {name} do?|what is {name}'s trade?|what kind of work does {name} do?]",
    "[{name} is {an trade}.|{name} is {an trade} and {does} {work}.]",
    "{trade}",
  ],
  [
    "[where does {name} live?|where is {name}'s home?|where can I find {name}'s house?]",
    "[{name} lives {home}.|{he} lives {home}.]",
    "{home}",
  ],
  [
    "[where does {name} work?|where can I find {name} during the day?]",
    "[{name} works {work}.|{he} is usually {work}.]",
    "{work}",
  ],
  ["[how old is {name}?|what is {name}'s age?]", "[{name} is {age} years old.|{he} is {age}.]", "{age}"],
  [
    "[what does {name} like?|what makes {name} happy?]",
    "[{name} likes {likes}.|{name} likes {likes} more than anything.]",
    "{likes}",
  ],
  [
    "[what is {name} afraid of?|what does {name} fear?]",
    "[{name} is afraid of {fears}.|{he} is afraid of {fears}.]",
    "{fears}",
  ],
  [
    "[what is {name} like?|what kind of person is {name}?]",
    "[{name} is {trait}.|people say that {name} is {trait}.]",
    "{trait}",
  ],
  [
    "[what does {name} look like?|how can I recognise {name}?]",
    "[{name} has {look}.|you will know {him} by {look}.]",
    "{look}",
  ],
  [
    "[does {name} have a pet?|what animal does {name} have?|which animal belongs to {name}?]",
    "[yes, {name} has {an pet}. its name is {petName}.|{name} has {an pet} called {petName}.]",
    "{an pet}",
  ],
  [
    "[who is {petName}?|to whom does {petName} belong?]",
    "[{petName} is {name}'s {pet}.|{petName} is {an pet} and belongs to {name}.]",
    "{name}'s {pet}",
  ],
  ["[is {name} related to anybody?|who is {name}'s family?]", "[{name} is {kin}.|yes. {name} is {kin}.]", "{kin}"],
  [
    "[what tool does {name} use?|what does {name} need for {his} work?]",
    "[{name} works with {an tool}.|{he} uses {an tool}.]",
    "{an tool}",
  ],
  [
    "[who is the {trade} of Wrenmouth?|who is {an trade} here?|is there {an trade} in the village?]",
    "[the {trade} is {name}.|{name} is the {trade} of the village. {he} works {work}.]",
    "{name}",
  ],
  [
    "who is {name}?",
    "[{name} is {an trade} in Wrenmouth. {he} lives {home}.|{name} is {kin} and {does} {work}.|{name} is our {trade}, {an age} year old [person|neighbour] who is {trait}.]",
    "{trade}",
  ],
];

/** A question about a villager. */
export function aboutVillager(random: Random, v: Villager = pick(random, villagers)): Answered {
  const usable = v.trade === "pupil" ? about.filter(([q]) => !q.includes("the {trade}")) : about;
  const [question, answer, brief] = pick(random, usable);
  const context = { ...v, age: String(v.age) } as unknown as Context;
  return {
    question: render(random, question, context),
    answer: render(random, answer, context),
    brief: render(random, brief, context),
  };
}

const elsewhere = [
  "the capital of France",
  "the highest mountain",
  "a computer",
  "a telephone",
  "the moon",
  "a tiger",
  "football",
  "a motor car",
  "the king",
  "snow in the desert",
  "a star",
  "a railway",
];

/** Questions to which Wrenmouth has no answer. */
export function unknown(random: Random): Answered {
  const v = pick(random, visitors);
  if (random.nextInt(2)) {
    const question = render(
      random,
      "[who is {name}?|where does {name} live?|what does {name} do?|does {name} have a pet?|how old is {name}?]",
      v as unknown as Context,
    );
    return {
      question,
      answer: render(random, "I do not know anybody called {name} in Wrenmouth.", v as unknown as Context),
      brief: "I do not know",
    };
  }
  return {
    question: render(random, "[what is {it}?|tell me about {it}.|what do you know about {it}?]", {
      it: pick(random, elsewhere),
    }),
    answer: "I do not know about that. I only know Wrenmouth and its people.",
    brief: "I do not know",
  };
}

const number = [
  "no",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
  "eleven",
  "twelve",
];

/** A question about boats, places, days, feasts or prices. */
export function aboutVillage(random: Random): Answered {
  const from = (templates: readonly (readonly [string, string, string?])[], context: Context): Answered => {
    const [question, answer, brief] = pick(random, templates);
    return {
      question: render(random, question, context),
      answer: render(random, answer, context),
      ...(brief ? { brief: render(random, brief, context) } : {}),
    };
  };
  switch (random.nextInt(5)) {
    case 0: {
      const boat = pick(random, boats);
      return from(
        [
          [
            "[who owns {name}?|whose boat is {name}?|to whom does {name} belong?]",
            "[{name} belongs to {owner}.|{owner} owns {name}.]",
            "{owner}",
          ],
          ["what colour is {name}?", "[{name} is {colour}.|it is {colour}.]", "{colour}"],
          [
            "[what kind of boat is {name}?|what is {name}?]",
            "{name} is {an colour} {kind}. it belongs to {owner}.",
            "{an kind}",
          ],
          ["how many people sail on {name}?", "{name} has a crew of {count}.", "{count}"],
        ],
        { ...boat, count: number[boat.crew]! } as unknown as Context,
      );
    }
    case 1: {
      return from(
        [
          [
            "[what is {name}?|tell me about {name}.|what do you know about {name}?]",
            "[{about}|{about} you can find {find} there.]",
          ],
          ["what can I find {at}?", "[there you can find {find}.|{at}, you can find {find}.]", "{find}"],
        ],
        pick(random, places) as unknown as Context,
      );
    }
    case 2: {
      const [day, custom] = pick(random, days);
      return from(
        [
          ["[what happens on {day}?|what do people do on {day}?|is {day} a special day?]", "on {day}, {custom}."],
          ["on which day do we say that {custom}?", "on {day}.", "{day}"],
        ],
        { day, custom },
      );
    }
    case 3: {
      const [feast, when, what] = pick(random, feasts);
      return from(
        [
          ["when is {feast}?", "{feast} is {when}.", "{when}"],
          ["[what happens at {feast}?|what is {feast}?]", "{feast} is {when}. then {what}."],
        ],
        { feast, when, what },
      );
    }
    default: {
      const item = pick(random, prices);
      const cost = pence(item.pence);
      return from(
        [
          ["how much is {an one}?", "{an one} costs {cost}.", "{cost}"],
          [
            "what does {an one} cost at the market?",
            "[it costs {cost}.|at the market, {an one} costs {cost}.]",
            "{cost}",
          ],
        ],
        { ...item, cost },
      );
    }
  }
}

const pence = (n: number): string => (n === 1 ? "1 penny" : `${n} pence`);

/** Arithmetic of the market, with small numbers. */
export function arithmetic(random: Random): Answered {
  const item = pick(random, prices);
  const n = 2 + random.nextInt(8);
  const total = n * item.pence;
  switch (random.nextInt(4)) {
    case 0:
      return {
        question: render(
          random,
          "[how much do {n} {many} cost?|what do I pay for {n} {many}?|I want to buy {n} {many}. how much is that?]",
          { n, many: item.many },
        ),
        answer: `${capital(`${one(item.one)} costs ${pence(item.pence)}`)}. ${n} times ${item.pence} is ${total}, so ${n} ${item.many} cost ${pence(total)}.`,
        brief: pence(total),
      };
    case 1: {
      const a = 2 + random.nextInt(30);
      const b = 2 + random.nextInt(20);
      return {
        question: pick(random, [`What is ${a} plus ${b}?`, `How much is ${a} and ${b}?`]),
        answer: `${a} plus ${b} is ${a + b}.`,
        brief: String(a + b),
      };
    }
    case 2: {
      const b = 1 + random.nextInt(12);
      const a = b + 1 + random.nextInt(20);
      const fish = pick(random, ["herrings", "eggs", "apples", "candles"]);
      const who = pick(random, [...villagers, ...visitors]) as Person;
      return {
        question: `${who.name} has ${a} ${fish} and sells ${b} of them. How many are left?`,
        answer: `${a} minus ${b} is ${a - b}, so ${a - b} ${a - b === 1 ? fish.slice(0, -1) : fish} ${a - b === 1 ? "is" : "are"} left.`,
        brief: String(a - b),
      };
    }
    default: {
      const change = 1 + random.nextInt(9);
      return {
        question: `I buy ${one(item.one)} and pay with ${item.pence + change} pence. How much do I get back?`,
        answer: `${capital(one(item.one))} costs ${pence(item.pence)}. ${item.pence + change} minus ${item.pence} is ${change}, so you get ${pence(change)} back.`,
        brief: pence(change),
      };
    }
  }
}

const one = (noun: string): string => `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
const capital = (text: string): string => text.replace(/^./, (l) => l.toUpperCase());

/** Words: meanings, opposites, the past of a verb. */
export function language(random: Random): Answered {
  switch (random.nextInt(3)) {
    case 0: {
      const [word, meaning] = pick(random, words);
      return {
        question: render(random, "[what is {an word}?|what does the word {word} mean?|explain the word {word}.]", {
          word,
        }),
        answer: render(random, "{an word} is {meaning}.", { word, meaning }).replace("A fog", "Fog"),
        brief: meaning,
      };
    }
    case 1: {
      const [a, b] = pick(random, opposites);
      return { question: `What is the opposite of ${a}?`, answer: `The opposite of ${a} is ${b}.`, brief: b };
    }
    default: {
      const [base, past] = pick(random, verbs);
      const who = pick(random, villagers).name;
      return {
        question: pick(random, [`What is the past of the verb ${base}?`, `Today we ${base}. What is it in the past?`]),
        answer: pick(random, [
          `The past of ${base} is ${past}.`,
          `Yesterday ${who} ${past}. The past of ${base} is ${past}.`,
        ]),
        brief: past,
      };
    }
  }
}

const events: readonly (readonly [sentence: string, verb: string, why: string])[] = [
  ["{p} found {an thing} {at} {time}", "find", "because {he} was looking for shells"],
  ["{p} lost {an thing} {at} {time}", "lose", "because there was a hole in {his} pocket"],
  ["{p} sold {an thing} to {q} {time} {at}", "sell", "because {he} needed money"],
  ["{p} gave {q} {an thing} {at} {time}", "give", "because it was a feast"],
  ["{p} carried {an thing} {to} {time}", "carry", "because {q} had asked for it"],
  ["{p} hid {an thing} {at} {time}", "hide", "because it was a surprise for {q}"],
  ["{p} brought {an thing} {to} {time}", "bring", "because {q} was waiting for it"],
  ["{p} borrowed {an thing} from {q} {time} {at}", "borrow", "because {his} own was broken"],
];

/** A short passage about anybody, and a question that only the passage answers. */
export function passage(random: Random): Answered {
  const [p, q] = sample<Person>(random, [...villagers, ...visitors], 2) as [Person, Person];
  const place = pick(random, places);
  const [sentence, verb, why] = pick(random, events);
  const thing = pick(random, objects);
  const time = pick(random, times);
  const weather = pick(random, weathers);
  const context: Context = {
    p: p as never,
    q: q as never,
    he: p.he,
    his: p.his,
    thing,
    time,
    weather,
    at: place.at,
    to: place.to,
  };
  const because = render(random, why, context).replace(/^B/, "b");
  const facts = [
    `${render(random, sentence, context)} ${because}.`,
    render(random, "it was {weather} that day.", context),
    render(
      random,
      pick(random, [
        "[after that|later], {q} went home.",
        "{q} had known it all the time.",
        "{p} was [happy|tired|proud|in a hurry].",
        "many people saw it.",
      ]),
      context,
    ),
  ];
  const text = random.nextInt(2) ? `${facts[1]} ${facts[0]} ${facts[2]}` : `${facts[0]} ${facts[1]} ${facts[2]}`;
  const asked: [string, string, string][] = [
    [`Who ${past(verb)} the ${thing}?`, `${p.name} ${past(verb)} the ${thing}.`, p.name],
    [`What did ${p.name} ${verb}?`, `${p.name} ${past(verb)} ${one(thing)}.`, one(thing)],
    [`When did ${p.name} ${verb} the ${thing}?`, `${capital(time)}.`, time],
    ["What was the weather like?", `It was ${weather}.`, weather],
    [`Why did ${p.name} ${verb} the ${thing}?`, `${capital(because)}.`, because],
    [`Where did it happen?`, `It happened ${place.at}.`, place.at],
  ];
  const [question, answer, brief] = pick(random, sentence.includes("{to}") ? asked.slice(0, 5) : asked);
  return {
    question: pick(random, [`${text}\n${question}`, `Read this: ${text}\n${question}`, `${question}\n${text}`]),
    answer,
    brief,
  };
}

const past = (verb: string): string =>
  ({
    find: "found",
    lose: "lost",
    sell: "sold",
    give: "gave",
    carry: "carried",
    hide: "hid",
    bring: "brought",
    borrow: "borrowed",
  })[verb]!;

/** Small exercises: lists and orders. */
export function exercise(random: Random): Answered {
  switch (random.nextInt(4)) {
    case 0: {
      const items = sample(random, objects, 3);
      return {
        question: render(
          random,
          "[name three things that you could find in a boat.|name three useful things.|tell me three things that people lose.]",
        ),
        answer: `${capital(list(items.map(one)))}.`,
      };
    }
    case 1: {
      const people = sample(random, villagers, 3);
      return {
        question: "Name three people of Wrenmouth and what they do.",
        answer: `${people.map((v) => `${v.name} is ${/^[aeiou]/.test(v.trade) ? "an" : "a"} ${v.trade}`).join(". ")}.`,
      };
    }
    case 2: {
      const names = sample(random, [...villagers, ...visitors], 3 + random.nextInt(2)).map((p) => p.name);
      return {
        question: `Which of these names comes first in the alphabet: ${list(names)}?`,
        answer: `${[...names].sort()[0]} comes first.`,
      };
    }
    default: {
      const things = sample(random, objects, 3);
      const at = random.nextInt(3);
      const order = ["first", "second", "third"][at]!;
      return {
        question: `Here is a list: ${things.join(", ")}. What is the ${order} thing on the list?`,
        answer: `The ${order} thing on the list is the ${things[at]}.`,
        brief: things[at]!,
      };
    }
  }
}
