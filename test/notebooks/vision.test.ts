import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { root } from "../../notebooks/embedded/prepare.js";
import { tokenizerFiles } from "../../notebooks/embedded/tokenizer.js";
import { pictureSets } from "../../notebooks/embedded/vision/data.js";
import { draw, shapes, side } from "../../notebooks/embedded/vision/draw.js";
import { exactMatch, messages, rowsOf } from "../../notebooks/embedded/vision/measure.js";
import { config, form, preprocessor, recipe, vocabulary } from "../../notebooks/embedded/vision/prepare.js";
import {
  type colourNames,
  most,
  type SeenRow,
  scene,
  taught,
  untaught,
} from "../../notebooks/embedded/vision/scenes.js";
import { Random } from "../../src/data/random.js";
import { decodeImage } from "../../src/images/decode.js";
import { bundledData, embeddedModel, loadDataset, loadModel, type Model } from "../../src/index.js";

let model: Model;

before(async () => {
  model = await loadModel(embeddedModel("vision"), { progress: false });
});
after(() => model.dispose());

const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex").slice(0, 16);
const file = (name: string): string => readFileSync(join(embeddedModel("vision"), name), "utf8");

test("a scene of the same seed has the same pixels, and whole things within the picture, row by row", () => {
  const random = new Random(3);
  const pixels: Uint8Array[] = [];
  for (let i = 0; i < 200; i++) {
    const { groundRgb, things } = scene(random, 1 + random.nextInt(most));
    pixels.push(draw(groundRgb, things));
    for (const { x, y, radius } of things)
      assert.ok(Math.min(x, y) >= radius && Math.max(x, y) <= side - radius, `${x} ${y} ${radius}`);
    assert.ok(things.every((thing, i) => i === 0 || thing.row * 3 + thing.column > things[i - 1]!.row * 3 + things[i - 1]!.column)); // biome-ignore format: one thought
  }
  assert.equal(digest(Buffer.concat(pixels)), "160b9dc5ea482940");
});

test("every shape covers its own share of a picture, and stays within its box", () => {
  const shares = shapes.map((shape) => {
    const pixels = draw([0, 0, 0], [{ shape, rgb: [255, 255, 255], x: 42, y: 42, radius: 20, turn: 0 }]);
    let sum = 0;
    for (let y = 0; y < side; y++)
      for (let x = 0; x < side; x++) {
        const level = pixels[(y * side + x) * 3]!;
        sum += level / 255;
        if (level > 0) assert.ok(Math.max(Math.abs(x - 41.5), Math.abs(y - 41.5)) < 20, `${shape} at ${x}, ${y}`);
      }
    return sum / 400;
  });
  // From their formulas, in squares of the radius: pi 0.81, pi 0.58, 1.52², 3 sqrt(3) / 4, 5 · 0.42 sin(36°), 4 · 0.88 · 0.56 - 0.56².
  const expected = [2.545, 1.822, 2.31, 1.299, 1.234, 1.658];
  for (const [i, share] of shares.entries())
    assert.ok(Math.abs(share - expected[i]!) < 0.06, `${shapes[i]} ${share}, expected ${expected[i]}`);
});

test("answers are what the scene shows", () => {
  const random = new Random(9);
  const thing = (shape: (typeof shapes)[number], colour: (typeof colourNames)[number], row: number, column: number) =>
    ({ shape, colour, row, column, rgb: [0, 0, 0], x: 0, y: 0, radius: 9, turn: 0 }) as const;
  const things = [thing("circle", "red", 0, 0), thing("star", "orange", 1, 2), thing("star", "blue", 2, 1)];
  const seen = { ground: "grey", groundRgb: [0, 0, 0], things } as const;
  const asked = new Set<string>();
  for (let i = 0; i < 400; i++)
    for (const kind of Object.values({ ...taught, ...untaught })) {
      const one = kind(random, seen);
      if (one) asked.add(`${one.question} ${one.answer}`);
    }
  const expected = [
    "What colour is the circle? red",
    "What shape is the red thing? circle",
    "What shape is the orange thing? star",
    "What shape is the blue thing? star",
    "What is on the left? a red circle",
    "What is on the right? an orange star",
    "What is at the top? a red circle",
    "What is at the bottom? a blue star",
    "What do you see? a red circle, an orange star and a blue star",
    "What colour is the background? grey",
    "What shape is in each place? circle, nothing, nothing, nothing, nothing, star, nothing, star, nothing",
    "What colour is in each place? red, nothing, nothing, nothing, nothing, orange, nothing, blue, nothing",
    "How many shapes are there? three",
    "Where is the circle? left",
    "Is there a star? yes",
    "Is there a ring? no",
    "Is there an orange star? yes",
    "Is there a blue circle? no",
  ];
  for (const one of expected) assert.ok(asked.has(one), one);
  const others = [...asked].filter((one) => !expected.includes(one) && !/^Is there an? .* (yes|no)$/.test(one));
  assert.deepEqual(others, []);
});

test("the committed model's files are what its script writes", () => {
  for (const [name, text] of Object.entries(tokenizerFiles(vocabulary(), recipe.context, form)))
    assert.deepEqual(JSON.parse(file(name)), JSON.parse(text), name);
  const same = (name: string, made: Record<string, unknown>): void => {
    const found = JSON.parse(file(name)) as Record<string, unknown>;
    for (const [key, value] of Object.entries(made)) assert.deepEqual(found[key], value, `${name}: ${key}`);
  };
  const { dtype: _, ...shape } = config();
  same("config.json", { ...shape, torch_dtype: "bfloat16" });
  same("preprocessor_config.json", preprocessor());
});

test("the model is small: at most 1.5 MB of weights, every linear layer made of whole NF4 blocks", () => {
  const sizes = readdirSync(embeddedModel("vision")).map((name) => statSync(join(embeddedModel("vision"), name)).size);
  assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= 1_600_000, sizes.join(", "));
  const layers = model.parameters().filter(({ name, shape }) => shape.length === 2 && !name.includes("embed"));
  assert.equal(layers.length, 3 * 7 + 3 * 4 + 2);
  for (const { name, shape } of layers) assert.ok(shape[1]! % 64 === 0, `${name} ${shape.join(" x ")}`);
});

test("the bundled pictures are what the generator draws", async () => {
  const sets = await pictureSets();
  const names = readdirSync(join(root, "notebooks", "data")).filter((name) => name.endsWith(".arrow"));
  assert.deepEqual(names.sort(), Object.keys(sets).sort());
  for (const [name, rows] of Object.entries(sets)) {
    const found = await loadDataset<SeenRow>(bundledData(name));
    assert.equal(found.length, rows.length);
    assert.ok(statSync(bundledData(name)).size < 300_000);
    for (const [i, row] of [...found].entries()) {
      const { image, question, answer } = rows[i]!;
      assert.deepEqual([row.question, row.answer], [question, answer], `${name}, row ${i}`);
      // Another version of the encoder may write other bytes: the pixels count.
      const [got, want] = [await decodeImage(row.image, "the file"), await decodeImage(image, "the generator")];
      assert.equal(digest(got.data), digest(want.data), `${name}, row ${i}: run vision/data.js`);
    }
  }
});

// What it reaches on 100 pictures of each kind: 100, 64, 94, 97, 89, 100 and 100 %. Shapes by their colour are what it has not quite learned.
assert.deepEqual(Object.keys(taught), ["colour", "shape", "there", "side", "all", "places", "ground"]);
const least = { colour: 0.95, shape: 0.5, there: 0.85, side: 0.9, all: 0.8, places: 0.95, ground: 0.95 };

for (const [kind, share] of Object.entries(least))
  test(`it answers questions of the kind "${kind}" on pictures that it has not seen`, async () => {
    const wrong: string[] = [];
    const right = await exactMatch(model, await rowsOf(kind, 8000, 60), wrong);
    assert.ok(right >= share, `${right}: ${wrong.join(" | ")}`);
  });

test("asked without a picture it says so", async () => {
  const answer = await model.chat([{ role: "user", content: "What colour is the circle?" }]);
  assert.equal(answer, "I see no picture.");
});

test("it cannot count, and a LoRA on its language layers teaches it to", async () => {
  using learner = await loadModel(embeddedModel("vision"), { progress: false }).addLora({
    rank: 16,
    alpha: 32,
    target: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    seed: 1,
  });
  const held = [...(await loadDataset<SeenRow>(bundledData("counting-test.arrow")))];
  assert.ok((await exactMatch(learner, held)) < 0.05);
  for (const { name, trainable } of learner.parameters())
    if (trainable) assert.ok(name.includes("language_model") && name.includes("lora_"), name);
  const run = await learner.train(await loadDataset<SeenRow>(bundledData("counting-train.arrow")), {
    format: (row) => [...messages(row), { role: "assistant", content: row.answer }],
    epochs: 12,
    batch: 16,
    lr: 3e-3,
    warmup: 10,
    schedule: "cosine",
    seed: 1,
    progress: false,
  });
  assert.equal(run.steps, 240);
  const wrong: string[] = [];
  const share = await exactMatch(learner, held, wrong);
  assert.ok(share >= 0.9, `${share}: ${wrong.join(" | ")}`);
});
