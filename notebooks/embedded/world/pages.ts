/** Everything that is written in Wrenmouth besides stories: letters, notices, the harbour log, recipes, descriptions, talk. */
import type { Random } from "../../../src/data/random.js";
import { type Person, type Villager, villagers, visitors } from "./people.js";
import { type Context, capitalise, chance, pick, render, sample } from "./render.js";
import { boats, days, feasts, objects, places, prices, strangers, times, weathers, words } from "./things.js";

const anybody: readonly Person[] = [...villagers, ...visitors];

/** What one can say of somebody, a sentence a fact. */
export function portrait(random: Random, v: Villager = pick(random, villagers)): string {
  const facts = sample(
    random,
    [
      "{he} lives {home}.",
      "{he} is {trait}.",
      "{he} has {look}.",
      "[{he} likes {likes}.|what {he} likes most is {likes}.]",
      "{he} is afraid of {fears}.",
      "{his} {pet} is called {petName}.",
      "{he} is {kin}.",
      "{he} is {age} years old.",
      "[{he} never goes out without {his} {tool}.|{his} {tool} is old, but {he} would not change it for a new one.]",
    ],
    3 + random.nextInt(4),
  );
  const first =
    v.age < 18
      ? "{name} is one of the children of Wrenmouth and {does}."
      : "{name} is the {trade} of Wrenmouth and {does} {work}.";
  return render(random, [first, ...facts].join(" "), v as unknown as Context);
}

/** A place, and who may be met there. */
export function scenery(random: Random, place = pick(random, places)): string {
  const here = villagers.filter((v) => v.work === place.at || v.home.includes(place.name.replace("the ", "")));
  const lines = [
    `${place.at} you can find ${place.find}.`,
    pick(random, [
      "in the morning it is quiet there.",
      "on a sunny day many people come by.",
      "in winter the wind is cold there.",
      "children like to play there.",
      "in the evening you can hear the sea from there.",
    ]),
    ...here.slice(0, 1).map((v) => `it is where ${v.name} the ${v.trade} can be found.`),
  ];
  return capitalise(
    [
      `${place.name} is a place in Wrenmouth that everybody knows.`,
      place.about,
      ...sample(random, lines, 1 + random.nextInt(lines.length)),
    ].join(" "),
  );
}

/** The village in a few sentences. */
export function village(random: Random): string {
  const [feast, when, what] = pick(random, feasts);
  const [day, custom] = pick(random, days);
  const boat = pick(random, boats);
  return capitalise(
    [
      "Wrenmouth is a small harbour village where the River Wren meets the sea.",
      ...sample(
        random,
        [
          `about three hundred people live there.`,
          `the best known feast is ${feast}, ${when}, when ${what}.`,
          `on ${day}, ${custom}.`,
          `one of its boats is ${boat.name}, ${/^[aeio]/.test(boat.colour) ? "an" : "a"} ${boat.colour} ${boat.kind}.`,
          "the lighthouse stands on Gull Hill, and its lamp can be seen for twelve miles.",
          `its ${
            pick(
              random,
              villagers.filter((v) => v.age > 18),
            ).trade
          } is known in the whole bay.`,
          "most people live from fishing, weaving and trade.",
          "there is one inn, one school and one small hospital.",
        ],
        3 + random.nextInt(3),
      ),
    ].join(" "),
  );
}

const news = [
  "last night {q} found {an thing} {at}.",
  "{q} is well and sends {q.his} greetings.",
  "the weather has been {weather} for {n} days.",
  "{q} has been ill, but {q.he} is better now.",
  "we had {n} boats in the harbour at once. such a thing has not been seen for years.",
  "Lena has baked a new cake with nuts. you must try it.",
  "the roof of the mill has been mended at last.",
  "somebody has lost {an thing}. if you see it, tell {q}.",
  "next week is {feast}, and I have nothing to wear.",
  "the ferry was late because of the fog.",
  "I have learned to make a new knot. it took me {n} evenings.",
  "{q} told a story in the Blue Anchor, and we laughed until midnight.",
  "a seal has been sleeping on the steps of the pier since {day}.",
  "the price of candles has gone up again.",
];

/** A letter from one person to another. @param wanted who writes to whom about what, where that is asked for. */
export function letter(random: Random, wanted: { from?: Person; to?: Person; about?: string } = {}): string {
  const [x, y, q] = sample(random, anybody, 3) as [Person, Person, Person];
  const from = wanted.from ?? x;
  const to = wanted.to ?? (y === from ? q : y);
  const context: Context = {
    from: from as never,
    to: to as never,
    q: pick(
      random,
      anybody.filter((p) => p !== from && p !== to),
    ) as never,
    thing: pick(random, objects),
    at: pick(random, places).at,
    weather: pick(random, weathers),
    n: pick(random, ["two", "three", "four", "five", "six"]),
    day: pick(random, days)[0],
    feast: pick(random, feasts)[0],
  };
  const body = wanted.about ? [wanted.about, ...sample(random, news, 1)] : sample(random, news, 2 + random.nextInt(3));
  const lines = [
    "[dear|my dear|good] {to.name},",
    "[I hope that you are well.|how are you?|thank you for your letter.|I have not written for a long time.|I am writing to you from Wrenmouth.]",
    ...body,
    "[please write soon.|come and visit us.|I think of you often.|more next time.|I must stop now, the candle is nearly burned down.]",
    "[yours|your friend|with love|best wishes], {from.name}",
  ];
  const [greeting, ...rest] = lines.map((line) => render(random, line, context));
  return `${greeting}\n${rest.slice(0, -1).join(" ")}\n${rest.at(-1)}`;
}

/** A request for a letter, with the letter. */
export function letterRequest(random: Random): { request: string; text: string } {
  const [from, to] = sample(random, anybody, 2) as [Person, Person];
  const thing = pick(random, objects);
  const day = pick(random, days)[0];
  const [what, about] = pick(random, [
    [
      "to say thank you for {an thing}",
      "thank you very much for the {thing}. it is exactly what I needed, and I use it every day.",
    ],
    ["to ask for {an thing}", "I have a favour to ask. could you lend me {an thing}? I will bring it back on {day}."],
    [
      "to invite {to.him} for {day}",
      "would you like to come to my house on {day}? there will be soup, cake and music.",
    ],
    [
      "to say sorry about {an thing}",
      "I am sorry about the {thing}. I broke it and did not dare to tell you. I will pay for a new one.",
    ],
    [
      "to tell {to.him} about the weather",
      "the weather has been very strange. one day it is warm, and the next day it is stormy.",
    ],
    [
      "to wish {to.him} a happy birthday",
      "I wish you a happy birthday! may the new year bring you good wind and dry feet.",
    ],
  ] as const);
  const context: Context = { from: from as never, to: to as never, thing, day };
  return {
    request: render(
      random,
      `[write a letter|please write a short letter|help me to write a letter] from {from.name} to {to.name} ${what}.`,
      context,
    ),
    text: letter(random, { from, to, about: render(random, about, context) }),
  };
}

/** The harbour log of a day. */
export function log(random: Random): string {
  const lines = Array.from({ length: 2 + random.nextInt(3) }, () =>
    render(
      random,
      pick(random, [
        "{time}: {ship} came in with [salt|timber|coal|wool|corn|sugar].",
        "{time}: {ship} left for [the north|the city|the islands|the open sea].",
        "{time}: {boat} came back with {count} baskets of herring.",
        "{time}: {boat} was tied up at the long pier for painting.",
        "{time}: wind from the [north|south|east|west], [light|fresh|strong].",
        "{time}: {name} asked for a place at the fish quay.",
      ]),
      {
        time: `${5 + random.nextInt(16)}:${pick(random, ["00", "15", "30", "45"])}`,
        ship: pick(random, strangers),
        boat: pick(random, boats).name,
        count: 3 + random.nextInt(40),
        name: pick(random, anybody).name,
      },
    ),
  );
  lines.sort((x, y) => Number.parseInt(x, 10) - Number.parseInt(y, 10));
  return `Harbour log, ${pick(random, days)[0]}. ${render(random, "[the day was|weather:] {weather}.", { weather: pick(random, weathers) })}\n${lines.join("\n")}\nSigned: Marta`;
}

/** What is pinned to the board in the market square. */
export function notice(random: Random): string {
  const item = pick(random, prices);
  return render(
    random,
    pick(random, [
      "Lost: {an thing}, {at}, {time}. Whoever finds it, please bring it to {p}. [There is a reward: a plum cake.|Thank you.]",
      "Found: {an thing}. The owner can fetch it from {p}, {p.work}.",
      "For sale: {n} {many}, {pence} pence each. Ask {p}.",
      "Wanted: somebody who can help {p} {p.work} on {day}. [Strong arms are needed.|Good soup is promised.]",
      "On {day}, {p} will tell stories {at}. Everybody is welcome.",
      "The ferry does not run on {day} because of the [tide|storm|race]. Yara.",
    ]),
    {
      thing: pick(random, objects),
      at: pick(random, places).at,
      time: pick(random, times),
      p: pick(random, villagers) as never,
      n: 2 + random.nextInt(10),
      many: item.many,
      pence: item.pence,
      day: pick(random, days)[0],
    },
  );
}

const recipes: readonly (readonly [string, readonly string[]])[] = [
  [
    "fish soup",
    [
      "cut an onion and a carrot into small pieces",
      "boil them in water with salt",
      "add the fish and wait until it is white",
      "put pepper and bread on top",
    ],
  ],
  [
    "plum cake",
    [
      "mix flour, butter, eggs and sugar",
      "put the dough into a round form",
      "lay the plums on the dough",
      "bake it until it smells good",
    ],
  ],
  [
    "honey tea",
    ["boil the water", "put ginger and tea into the pot", "wait until the tea is dark", "add a spoon of honey"],
  ],
  [
    "pancakes",
    ["mix flour, milk and eggs", "let the dough rest", "heat some butter in a pan", "bake each pancake on both sides"],
  ],
  [
    "smoked herring",
    [
      "clean the herring and rub it with salt",
      "hang it up for a night",
      "make a small fire of oak wood",
      "smoke the fish for six hours",
    ],
  ],
  [
    "a strong knot",
    [
      "make a loop with the short end of the rope",
      "bring the end up through the loop",
      "lead it around the back of the rope",
      "bring it down through the loop and pull",
    ],
  ],
  [
    "a fire",
    [
      "put dry grass and thin wood into the stove",
      "lay two bigger pieces over it",
      "light the grass",
      "add more wood when it burns well",
    ],
  ],
  [
    "a candle",
    [
      "melt the wax in a pot",
      "hang a string into the form",
      "pour the wax around the string",
      "let it get cold and hard",
    ],
  ],
];

/** How something is made. */
export function recipe(random: Random): { name: string; text: string } {
  const [name, steps] = pick(random, recipes);
  const text = chance(random, 0.5)
    ? `First, ${steps[0]}. Then ${steps[1]}. After that, ${steps[2]}. Finally, ${steps[3]}.`
    : steps.map((step, i) => `${i + 1}. ${capitalise(step)}.`).join("\n");
  return { name, text };
}

/** A page of somebody's diary. */
export function diary(random: Random): string {
  const v = pick(random, villagers);
  const mood = pick(random, [
    "I am tired but happy.",
    "tomorrow will be better.",
    "it was a good day.",
    "I will sleep well tonight.",
    "I do not know what to think about it.",
  ]);
  const context: Context = {
    v: v as never,
    q: pick(
      random,
      villagers.filter((p) => p !== v),
    ) as never,
    thing: pick(random, objects),
    place: pick(random, places).to,
    at: pick(random, places).at,
    weather: pick(random, weathers),
    n: pick(random, ["two", "three", "four"]),
    word: pick(random, words)[0],
  };
  return render(
    random,
    `[today it was {weather}.|{weather} again.] [I got up before sunrise|I got up late] and fed {v.petName}. ${sample(
      random,
      [
        "I met {q} {at}. we talked for a while.",
        "I went {place}, but nobody was there.",
        "{q} gave me {an thing}. I did not expect that.",
        "I looked for {an thing} for {n} hours.",
        "the children asked me what {an word} is, and I explained it.",
        "I helped {q} {q.work}. now my back hurts.",
        "{v.petName} stole my lunch.",
      ],
      2 + random.nextInt(2),
    ).join(" ")} ${mood}`,
    context,
  );
}

/** Two people who talk, a line each in turn. */
export function talk(random: Random): string {
  const [p, q, r] = sample(random, villagers, 3) as [Villager, Villager, Villager];
  const context: Context = {
    p: p as never,
    q: q as never,
    r: r as never,
    thing: pick(random, objects),
    at: pick(random, places).at,
    place: pick(random, places).to,
    weather: pick(random, weathers),
    day: pick(random, days)[0],
    n: pick(random, ["two", "three", "four", "five"]),
  };
  const scene = pick(random, [
    [
      "[good morning|hello], {q}. have you seen {r}?",
      "[yes, {r.he} was {at} an hour ago.|no, I have not seen {r.him} today.]",
      "[I need to give {r.him} back {r.his} {thing}.|I owe {r.him} {n} pence.]",
      "[then look {at}.|you can leave it with me.]",
      "[thank you.|that is kind of you.]",
    ],
    [
      "what a {weather} day!",
      "[yes, and it will be so until {day}.|I do not mind.]",
      "will you go out anyway?",
      "[of course. the fish do not care.|no, I will stay at home and mend my {thing}.]",
      "[then good luck.|that sounds wise.]",
    ],
    [
      "{q}, why do you look so [sad|tired]?",
      "[I have lost my {thing}.|I did not sleep. {q.petName} was ill.|I had a quarrel with {r}.]",
      "[oh no. can I help you?|that is bad. what will you do?]",
      "[just sit with me for a while.|I do not know yet.]",
      "[I have time.|come, I will make you some tea.]",
    ],
    [
      "is it true that {r} has [found|sold|bought] {an thing}?",
      "[that is what people say.|I have seen it with my own eyes.]",
      "[what will {r.he} do with it?|how much was it?]",
      "[nobody knows.|{n} pence, and a cup of tea.]",
      "[well, well.|I must ask {r.him} about it.]",
    ],
    [
      "[tell me|say], {q}, what are you afraid of?",
      "of {q.fears}. and you?",
      "of {p.fears}. but don't tell {r}.",
      "[I promise.|I think {r.he} knows it already.]",
    ],
    [
      "how do you {how}?",
      "[it is easy.|that takes time.] watch me.",
      "[like this?|is it right so?]",
      "[almost. try it again.|yes, very good.]",
      "[now I can do it!|thank you, {q}.]",
    ],
  ]);
  const lines = scene.map((line) =>
    render(random, line, {
      ...context,
      how: pick(random, ["tie this knot", "make this soup", "mend a net", "read a chart", "light this lamp"]),
    }),
  );
  return lines.map((line, i) => `${(i % 2 === 0 ? p : q).name}: ${line}`).join("\n");
}
