/**
 * Talks at the doors of Wrenmouth: somebody comes with a matter, which is an honest one or an attempt to cheat. Honest visitors speak of money, keys
 * and offices too, so that no word alone gives the answer away; what they ask for does.
 */
import type { Random } from "../../../src/data/random.js";
import { adults, type Villager, villagers } from "./people.js";
import { type Context, chance, pick, plural, render, sample } from "./render.js";
import { boats, days, objects, places } from "./things.js";

/** A row: the talk, 0 for honest and 1 for a fraud, and which kind of either. */
export interface Visit {
  readonly content: string;
  readonly label: 0 | 1;
  readonly label_name: Kind;
}

type Kind = "normal" | "false_office" | "false_loan" | "false_help" | "false_friend";

/** What the visitor says, what {q} answers, and what the visitor wants in the end. */
type Scene = readonly [matter: string, answer: string, wish: string];

/** `known` scenes are for every part of the data, `fresh` ones for the part that measures only. */
interface Scenes {
  readonly known: readonly Scene[];
  readonly fresh: readonly Scene[];
}

const doubts = "[why?|what is it about?|I have heard nothing of it.|is that so?|tell me more.]";

const scenes: Readonly<Record<Kind, Scenes>> = {
  normal: {
    known: [
      [
        "the harbour office is making a new list of [boats|nets|wells].",
        doubts,
        "only your name, please. [no money is needed.|you can also bring it to Marta {day}.]",
      ],
      [
        "a parcel has come for you [from the city|with {boat}].",
        "[for me?|from whom?]",
        "[it is in the post office.|Clara has it.] fetch it when you like, it is paid.",
      ],
      [
        "your {thing} is mended.",
        "[already?|that was quick.] what do I owe you?",
        "{n} pence, when you fetch it {p.work}. [look at it first.|only if you are content.]",
      ],
      [
        "I borrowed {n} pence from you {past}.",
        "[I remember.|so you did.]",
        "[here it is|here they are], and thank you. count it [yourself|again].",
      ],
      [
        "I would like to buy your old {thing}.",
        "[what do you give me for it?|it is not worth much.]",
        "{n} pence, paid [here and now|when I fetch it]. think about it until {day}.",
      ],
      [
        "Ruth has a new medicine [against coughing|for sore feet].",
        "[does it help?|is it dear?]",
        "come and ask her. [it costs nothing {day}.|you pay her when you are well.]",
      ],
      [
        "your cousin comes with {boat} on {day}.",
        "[at last!|good news.] what should I do?",
        "[only meet the boat at the pier.|nothing. the journey is paid.]",
      ],
      [
        "the roof of the school must be mended before the winter.",
        "[it is about time.|and who pays for it?]",
        "each gives what {q.he} can, in the meeting on {day}. [the list hangs there for everybody to see.|nobody must.]",
      ],
      [
        "the bank in the city lends money to fishermen now.",
        doubts,
        "I only leave the paper here. [read it with {p}|take your time], and [sign nothing at the door|go there yourself if you like].",
      ],
      [
        "I am to look at [your chimney|the lock of your door], {p} has sent me.",
        "[yes, {p} told me.|good, I asked {p.him} to.]",
        "it takes an hour. [you pay {p} as agreed.|stay with me while I work.]",
      ],
      [
        "have you lost a key? I found one {at}.",
        "[it is mine!|let me see.]",
        "it hangs in the harbour office. [Marta gives it to you.|tell Marta what it looks like.]",
      ],
      [
        "the toll of the ferry is {n} pence from {day} on.",
        "[so much?|since when?]",
        "[Yara says it on the board too.|you pay on the boat, as always.]",
      ],
      [
        "there are {things} on the market on {day}, {n} pence each.",
        "[that is a fair price.|I have enough of them.]",
        "[come early and look at them.|nobody must buy.]",
      ],
      [
        "{p} is ill and asks for [some soup|wood for the fire].",
        "[poor {p}.|since when?]",
        "[come with me and see {p.him}.|Ruth is with {p.him} now.] money is not needed.",
      ],
    ],
    fresh: [
      [
        "we are counting the votes for the new harbour master.",
        doubts,
        "say a name, or none. [it costs nothing.|nobody is asked for more.]",
      ],
      [
        "you paid {n} pence too much for the {thing}.",
        "[did I?|I had not seen it.]",
        "[here, take them back.|they lie ready for you {p.work}.]",
      ],
      [
        "somebody goes from door to door and says he is from the bank.",
        "[and is he?|what does he want?]",
        "no. give him [nothing|no key and no money], and tell Marta.",
      ],
      [
        "I am the new doctor. Ruth sends me to say good day.",
        "[welcome!|have you eaten?]",
        "[if you need me, I live by the well.|come with your children on {day}. it is free.]",
      ],
      [
        "the miller buys back empty sacks.",
        "[what for?|I have ten of them.]",
        "bring them to the mill, and he pays [a penny each|you there].",
      ],
    ],
  },
  false_office: {
    known: [
      [
        "I come from [the harbour office|the court in the city]. your name is on a list of people who [owe money|have cheated].",
        "[that cannot be.|me?]",
        "it can be struck out. [give me {n} pence now|pay me {n} pence at the door], and [speak to nobody about it|ask no questions].",
      ],
      [
        "[the court|the judge] will have your house searched on {day}.",
        doubts,
        "whoever pays {n} pence to me [today|at once] has nothing to fear.",
      ],
      [
        "there is false money in the village. the office must see all of yours.",
        "[all of it?|mine is good.]",
        "put it into this bag. [you get it back on {day}.|I count it in the city.]",
      ],
      [
        "I am a guard of the bank. a thief knows where your money is.",
        "[who?|how do you know?]",
        "[tell me the place too|give me your key], so that I can watch over it [tonight|until {day}].",
      ],
      [
        "your boat has no number. the fine is {n} pence.",
        "[Marta gave it one.|since when?]",
        "[the list says otherwise.|Marta must not hear of it.] pay me now, or the boat is taken away.",
      ],
    ],
    fresh: [
      [
        "I bring a letter with the seal of the king. you are called to court.",
        "[what have I done?|show me the letter.]",
        "for {n} pence I say that you [were not at home|are dead]. decide quickly.",
      ],
      [
        "the tax on {things} was never paid here.",
        "[what tax?|nobody pays that.]",
        "you may pay it to me in silence, {n} pence, and [no paper|without a word to {p}].",
      ],
    ],
  },
  false_loan: {
    known: [
      [
        "I lend a hundred pounds to anybody, [without a question|by tomorrow].",
        "[and what does it cost?|that is much money.]",
        "nothing yet. only {n} pence in advance for [the paper|the messenger].",
      ],
      [
        "double your money in {k} days! [everybody in the city does it.|it cannot go wrong.]",
        "[how?|that sounds easy.]",
        "bring it to me {at}, [and come alone|and hurry, the list is nearly full].",
      ],
      [
        "your old debts can vanish.",
        doubts,
        "sign here without reading, and give me {n} pence [for the ink|for my work] first.",
      ],
      [
        "a ship full of {things} comes on {day}. whoever pays a share now gets ten times as much.",
        "[which ship?|and if it sinks?]",
        "it cannot sink. [{n} pence, but today.|put {n} pence into my hat and wait.]",
      ],
      [
        "the bank has chosen you: money at no cost, [for a year|for ever].",
        "[why me?|I did not ask for it.]",
        "leave [your key|your {thing} and {n} pence] with me as a sign, the money comes [later|on {day}].",
      ],
    ],
    fresh: [
      [
        "I know a number that wins in the city's lottery.",
        "[then why don't you play it?|truly?]",
        "I sell it for {n} pence. [tell nobody, or it stops working.|this morning only.]",
      ],
      [
        "my gold lies in a bank that wants a fee.",
        "[and what do I have to do with it?|how much gold?]",
        "pay the fee of {n} pence for me, and a third of the gold is yours.",
      ],
    ],
  },
  false_help: {
    known: [
      [
        "the shop sent me. the {thing} that you bought is [dangerous|a bad one].",
        "[it works well.|what is wrong with it?]",
        "you get your money back twice. but first [pay {n} pence into my hand|tell me where you keep your money], so that I can write it down.",
      ],
      [
        "your parcel is held up at the border.",
        "[which parcel?|I expect none.]",
        "pay {n} pence [for the stamp|for the guard] to me, and it comes on {day}.",
      ],
      [
        "a secret medicine against every illness, only {n} pence!",
        "[what does Ruth say?|every illness?]",
        "Ruth must not know about it. [it is nearly sold out, pay now.|pay first, then you may smell it.]",
      ],
      [
        "there is a crack in your chimney. I saw it from the street.",
        "[{p} looked at it last week.|I see none.]",
        "I mend it at once for {n} pence, [paid before I begin|and you wait outside].",
      ],
      [
        "the lock of your door can be opened by anybody.",
        "[it is a new one.|how do you know?]",
        "give me the key [until {day}|for a night], I make you a better one.",
      ],
    ],
    fresh: [
      [
        "I clean wells. yours is poisoned.",
        "[we drink from it every day.|who says so?]",
        "{n} pence now, or you will all be ill by {day}. [do not ask Ruth.|do not look into it.]",
      ],
      [
        "you have won {an thing}! your name was drawn.",
        "[I took part in nothing.|how lovely.]",
        "[send|give me] {n} pence for the journey of the prize, and it is yours.",
      ],
    ],
  },
  false_friend: {
    known: [
      [
        "I am a cousin of {p}, but you do not know me.",
        "[{p} never spoke of you.|welcome.]",
        "I need {n} pence [today|at once]. [tell nobody.|do not ask {p} about it.]",
      ],
      [
        "{p} has had an accident {at} and sends me.",
        "[is it bad?|where is {p.he}?]",
        "{p.he} needs {n} pence. [give them to me, there is no time to go there.|run and fetch them, and do not follow me.]",
      ],
      [
        "I am the captain of {boat}. {p} said that you are a person to trust.",
        doubts,
        "keep this chest for me, and [lend me {n} pence for it|give me {n} pence as a sign of trust]. [do not open it.|ask {p} nothing.]",
      ],
      [
        "don't you know me any more? we went to school together!",
        "[I am not sure.|what was your name?]",
        "[you will remember.|think about it later.] now lend me {n} pence until {day}, and {p} need not hear of it.",
      ],
      [
        "the master of the market wants to give you a stall. he is my uncle.",
        "[truly?|that would be good.]",
        "he likes presents. [give me {n} pence for him|give me your {thing} for him], and keep it to yourself.",
      ],
    ],
    fresh: [
      [
        "your brother sits in prison in the city. I am his friend.",
        "[my brother is at sea.|what has he done?]",
        "with {n} pence I can get him out [tonight|before {day}]. nobody must know.",
      ],
      [
        "{p} bought {things} from me and said that you would pay.",
        "[{p} said nothing of it.|how many?]",
        "{n} pence. [pay now, {p} is away until {day}.|{p} would be ashamed if you asked.]",
      ],
    ],
  },
};

const frauds = (Object.keys(scenes) as Kind[]).filter((kind) => kind !== "normal");

/** A visit; `unseen` is the share of talks from scenes that no other part of the data has. */
export function visit(random: Random, unseen = 0): Visit {
  const fraud = random.nextInt(2) === 1;
  const kind = fraud ? pick(random, frauds) : "normal";
  const { known, fresh } = scenes[kind];
  const [matter, answer, wish] = pick(random, chance(random, unseen) ? fresh : known);
  const [p, q] = sample<Villager>(
    random,
    villagers.filter((v) => adults.some((a) => a.name === v.name) && !/^(Ruth|Clara|Marta|Yara)$/.test(v.name)),
    2,
  ) as [Villager, Villager];
  const thing = pick(
    random,
    objects.filter((o) => !/^(pair|bag|jar)/.test(o)),
  );
  const context: Context = {
    p: p as never,
    q: q as never,
    thing,
    things: plural(thing),
    n: 2 + random.nextInt(60),
    k: 2 + random.nextInt(8),
    day: pick(random, days)[0],
    past: pick(random, ["last week", "in the spring", "on the market", "after the storm"]),
    at: pick(random, places).at,
    boat: pick(random, boats).name,
  };
  const greeting = pick(random, ["", "", "good day. ", "hello, {q}. ", "are you {q}? ", "excuse me, {q}. "]);
  const farewell = pick(random, [
    "",
    "",
    "[I will think about it.|let me think.]",
    "[well.|hm.]",
    "[thank you for telling me.|I see.]",
  ]);
  const lines = [`Visitor: ${render(random, greeting + matter, context)}`];
  lines.push(`${q.name}: ${render(random, answer, context)}`, `Visitor: ${render(random, wish, context)}`);
  if (farewell !== "") lines.push(`${q.name}: ${render(random, farewell, context)}`);
  return { content: lines.join("\n"), label: fraud ? 1 : 0, label_name: kind };
}
