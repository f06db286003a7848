/**
 * What the embedded model that sees looks at: one to five shapes on a plain ground, and questions about them. Kinds of questions that it is taught, and
 * two that it is not, which notebooks teach it.
 */
import type { Random } from "../../../src/data/random.js";
import { chance, list, pick, sample, withArticle } from "../world/render.js";
import { draw, type Figure, png, type Rgb, type Shape, shapes, side } from "./draw.js";

const colours = {
  red: [214, 40, 40],
  orange: [245, 122, 24],
  yellow: [252, 224, 56],
  green: [50, 160, 70],
  blue: [40, 90, 210],
  purple: [130, 60, 170],
  black: [30, 30, 34],
} as const satisfies Record<string, Rgb>;
export type Colour = keyof typeof colours;
export const colourNames = Object.keys(colours) as readonly Colour[];

const grounds = {
  white: [250, 250, 250],
  grey: [176, 178, 182],
  pink: [250, 200, 214],
} as const satisfies Record<string, Rgb>;

/** A shape with the name of its colour and its cell, counted from the left and from the top. */
export interface Thing extends Figure {
  readonly colour: Colour;
  readonly row: number;
  readonly column: number;
}

/** A picture, before it is drawn. Things stand row by row from the top, in each row from the left. */
export interface Scene {
  readonly ground: keyof typeof grounds;
  readonly groundRgb: Rgb;
  readonly things: readonly Thing[];
}

/** A question about a scene, and its answer. */
export interface Asked {
  readonly question: string;
  readonly answer: string;
}

/** A row of the bundled data sets: the picture as the bytes of a PNG file. */
export interface SeenRow extends Asked {
  readonly image: Uint8Array;
}

/** Every level a little off. */
function nearly(random: Random, rgb: Rgb, by: number): Rgb {
  const off = (level: number): number => Math.min(255, Math.max(0, level + random.nextInt(2 * by + 1) - by));
  return [off(rgb[0]), off(rgb[1]), off(rgb[2])];
}

/** Cells of the picture across and down; a thing stands in one of them. */
export const cells = 3;
const cell = side / cells;

/** @param count of things, 1 to 9 @param distinct whether no two have the same shape or colour: at most 6 then */
export function scene(random: Random, count: number, distinct: boolean = false): Scene {
  const ground = pick(random, Object.keys(grounds) as (keyof typeof grounds)[]);
  const places = [...random.permutation(cells * cells).subarray(0, count)].sort((a, b) => a - b);
  const own = distinct
    ? { shapes: sample(random, shapes, count), colours: sample(random, colourNames, count) }
    : undefined;
  const things = places.map((place, i): Thing => {
    const [row, column] = [Math.floor(place / cells), place % cells];
    const radius = 11 + random.nextFloat() * 2.5;
    const within = (index: number): number => {
      const middle = (index + 0.5) * cell + (random.nextFloat() - 0.5) * 2 * (cell / 2 - radius);
      return Math.min(side - radius, Math.max(radius, middle));
    };
    const [x, y] = [within(column), within(row)];
    const colour = own?.colours[i] ?? pick(random, colourNames);
    const rgb = nearly(random, colours[colour], 10);
    return {
      shape: own?.shapes[i] ?? pick(random, shapes),
      colour,
      rgb,
      x,
      y,
      radius,
      turn: (random.nextFloat() - 0.5) * 0.3,
      row,
      column,
    };
  });
  return { ground, groundRgb: nearly(random, grounds[ground], 5), things };
}

/** The picture of a scene, as a PNG file. */
export function picture({ groundRgb, things }: Scene): Promise<Uint8Array> {
  return png(draw(groundRgb, things));
}

const named = ({ colour, shape }: Thing): string => withArticle(`${colour} ${shape}`);
const yes = (is: boolean): string => (is ? "yes" : "no");

/** The things that nothing else in the scene has this in common with. */
function alone<K extends "shape" | "colour">(things: readonly Thing[], key: K): Thing[] {
  return things.filter((thing) => things.every((other) => other === thing || other[key] !== thing[key]));
}

const edges: readonly (readonly [words: string, is: (thing: Thing) => boolean])[] = [
  ["on the left", ({ column }) => column === 0],
  ["on the right", ({ column }) => column === 2],
  ["at the top", ({ row }) => row === 0],
  ["at the bottom", ({ row }) => row === 2],
  ["in the middle", ({ row, column }) => row === 1 && column === 1],
];

/** Asks something about a scene; nothing of a scene that it does not fit. */
export type Kind = (random: Random, scene: Scene) => Asked | undefined;

/** What the model is taught. */
export const taught: Readonly<Record<string, Kind>> = {
  colour(random, { things }) {
    const fit = alone(things, "shape");
    if (fit.length === 0) return undefined;
    const { shape, colour } = pick(random, fit);
    return { question: `What colour is the ${shape}?`, answer: colour };
  },
  shape(random, { things }) {
    const fit = alone(things, "colour");
    if (fit.length === 0) return undefined;
    const { shape, colour } = pick(random, fit);
    const single = things.length === 1 && chance(random, 0.5);
    return { question: single ? "What shape is it?" : `What shape is the ${colour} thing?`, answer: shape };
  },
  there(random, { things }) {
    const seen = pick(random, things);
    const other = chance(random, 0.5);
    const shape: Shape = other ? pick(random, shapes) : seen.shape;
    if (chance(random, 0.5))
      return { question: `Is there a ${shape}?`, answer: yes(things.some((thing) => thing.shape === shape)) };
    const colour = other && chance(random, 0.5) ? pick(random, colourNames) : seen.colour;
    const found = things.some((thing) => thing.shape === shape && thing.colour === colour);
    return { question: `Is there ${withArticle(`${colour} ${shape}`)}?`, answer: yes(found) };
  },
  side(random, { things }) {
    const [words, is] = pick(random, edges);
    const [thing, ...more] = things.filter(is);
    return thing && more.length === 0 ? { question: `What is ${words}?`, answer: named(thing) } : undefined;
  },
  all(_, { things }) {
    return { question: "What do you see?", answer: list(things.map(named)) };
  },
  places(random, { things }) {
    const asked = pick(random, ["shape", "colour"] as const);
    const at = (place: number): string =>
      things.find(({ row, column }) => row * cells + column === place)?.[asked] ?? "nothing";
    const answer = Array.from({ length: cells * cells }, (_, place) => at(place)).join(", ");
    return { question: `What ${asked} is in each place?`, answer };
  },
  ground(_, { ground }) {
    return { question: "What colour is the background?", answer: ground };
  },
};

/** Things that one property tells apart, in random order, each with its other property: an exercise, whose answer cannot be foretold. */
export function match(random: Random, { things }: Scene): Asked {
  const [by, other] = random.nextInt(2) ? (["shape", "colour"] as const) : (["colour", "shape"] as const);
  const pairs = random.shuffle(alone(things, by)).map((thing) => `${thing[by]} ${thing[other]}`);
  return { question: `Which ${by} has which ${other}?`, answer: pairs.length > 0 ? pairs.join(", ") : "nothing" };
}

const numbers = ["no", "one", "two", "three", "four", "five"] as const;

/** Things in a picture at most. */
export const most = numbers.length - 1;

/** What the model is not taught, and notebooks teach it. */
export const untaught: Readonly<Record<"count" | "where", Kind>> = {
  count: (_, { things }) => ({ question: "How many shapes are there?", answer: numbers[things.length]! }),
  where(random, { things }) {
    const fit = alone(things, "shape");
    if (fit.length === 0) return undefined;
    const { shape, column } = pick(random, fit);
    return { question: `Where is the ${shape}?`, answer: ["left", "middle", "right"][column]! };
  },
};
