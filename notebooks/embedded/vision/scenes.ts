/**
 * What the embedded model that sees looks at: one to four shapes on a plain ground, and questions about them. Kinds of questions that it is taught, and
 * two that it is not, which notebooks teach it.
 */
import type { Random } from "../../../src/data/random.js";
import { chance, list, pick, withArticle } from "../world/render.js";
import { draw, type Figure, png, type Rgb, type Shape, shapes, side } from "./draw.js";

const colours = {
  red: [214, 40, 40],
  orange: [247, 140, 30],
  yellow: [250, 214, 40],
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

/** A shape with the name of its colour. */
export interface Thing extends Figure {
  readonly colour: Colour;
}

/** A picture, before it is drawn. Things stand from left to right. */
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

/** Things that do not touch each other. */
export function scene(random: Random, count: number = 1 + random.nextInt(4)): Scene {
  const ground = pick(random, Object.keys(grounds) as (keyof typeof grounds)[]);
  const things: Thing[] = [];
  for (let tries = 0; things.length < count; tries++) {
    // A place may have been blocked for good by what stands there.
    if (tries > 200) return scene(random, count);
    const radius = 11 + random.nextFloat() * (count < 3 ? 7 : 4);
    const place = (): number => radius + 1 + random.nextFloat() * (side - 2 * radius - 2);
    const [x, y] = [place(), place()];
    if (things.some((other) => Math.hypot(other.x - x, other.y - y) < other.radius + radius + 2)) continue;
    const colour = pick(random, colourNames);
    const rgb = nearly(random, colours[colour], 14);
    things.push({ shape: pick(random, shapes), colour, rgb, x, y, radius, turn: (random.nextFloat() - 0.5) * 0.5 });
  }
  things.sort((a, b) => a.x - b.x);
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

/** The thing that is farthest to one side, if by enough to be seen. */
function farthest(things: readonly Thing[], value: (thing: Thing) => number): Thing | undefined {
  const [first, second] = [...things].sort((a, b) => value(b) - value(a));
  return first && second && value(first) - value(second) > 8 ? first : undefined;
}

const edges: readonly (readonly [words: string, value: (thing: Thing) => number])[] = [
  ["on the left", (thing) => -thing.x],
  ["on the right", (thing) => thing.x],
  ["at the top", (thing) => -thing.y],
  ["at the bottom", (thing) => thing.y],
];

type Kind = (random: Random, scene: Scene) => Asked | undefined;

/** What the model is taught. A kind gives nothing for a scene that it does not fit. */
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
    const [words, value] = pick(random, edges);
    const thing = farthest(things, value);
    return thing && { question: `What is ${words}?`, answer: named(thing) };
  },
  all(_, { things }) {
    return { question: "What do you see?", answer: list(things.map(named)) };
  },
  ground(_, { ground }) {
    return { question: "What colour is the background?", answer: ground };
  },
};

const numbers = ["no", "one", "two", "three", "four"] as const;

/** What the model is not taught, and notebooks teach it. */
export const untaught: Readonly<Record<"count" | "where", Kind>> = {
  count: (_, { things }) => ({ question: "How many shapes are there?", answer: numbers[things.length]! }),
  where(random, { things }) {
    const fit = alone(things, "shape").filter(({ x }) => Math.abs(x - side / 2) > 6);
    if (fit.length === 0) return undefined;
    const { shape, x } = pick(random, fit);
    return { question: `Is the ${shape} on the left or on the right?`, answer: x < side / 2 ? "left" : "right" };
  },
};
