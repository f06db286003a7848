import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { IGNORED } from "../../src/data/mask.js";
import { tokenizeRows } from "../../src/data/tokenize.js";
import { toBundle as bundleOf } from "../../src/display/bundle.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { Dataset, loadModel, type Model } from "../../src/index.js";
import { stats } from "../../src/tensor/native.js";
import { smallConfig } from "./small.js";

const toBundle = (value: unknown): Record<string, unknown> => bundleOf(value) as Record<string, unknown>;
const quiet = { progress: false } as const;
const TEMPLATE = `{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;

let folder: string;
const files: Record<string, string> = {};

/** A folder with a config and a tokenizer of a small Qwen2-VL, and pictures of one colour. */
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-images-"));
  const chatml = fileURLToPath(new URL("../../../test/fixtures/hub/chatml", import.meta.url));
  await cp(chatml, folder, { recursive: true });
  const tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"];
  const tokenizer = (await Tokenizer.fromFolder(folder)).withTokens(tokens);
  await tokenizer.save(folder);
  const path = join(folder, "tokenizer_config.json");
  const own = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify({ ...own, chat_template: TEMPLATE }));
  await rm(join(folder, "chat_template.jinja"), { force: true });
  const { model_type: _, ...text } = smallConfig;
  const config = {
    ...text,
    initializer_range: 0.3,
    model_type: "qwen2_vl",
    vocab_size: tokenizer.vocabSize,
    image_token_id: tokenizer.idOf("<|image_pad|>"),
    rope_scaling: { type: "mrope", mrope_section: [2, 3, 3] },
    vision_config: {
      depth: 1,
      embed_dim: 32,
      num_heads: 2,
      hidden_size: 64,
      mlp_ratio: 2,
      patch_size: 4,
      initializer_range: 0.3,
    },
  };
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeFile(join(folder, "preprocessor_config.json"), JSON.stringify({ min_pixels: 64, max_pixels: 1024 }));
  for (const [name, background] of [
    ["red", "#e02010"],
    ["blue", "#1030e0"],
    ["green", "#10c030"],
  ] as const) {
    files[name] = join(folder, `${name}.png`);
    await sharp({ create: { width: 24, height: 16, channels: 3, background } })
      .png()
      .toFile(files[name]);
  }
});
after(() => rm(folder, { recursive: true }));

const load = (): Promise<Model> =>
  Promise.resolve(loadModel(folder, { ...quiet, weights: "random", seed: 7, dtype: "float32" }));
const ask = (image: unknown, text = "What?") => ({
  role: "user",
  content: [
    { type: "image", image },
    { type: "text", text },
  ],
});

test("chat and generate take images as paths, bytes and records, and tell them apart", async () => {
  using model = await load();
  assert.equal(model.module.sight!.settings.maxPixels, 1024);
  const options = { maxNewTokens: 12 };
  const red = await model.chat([ask(files.red)], options);
  const handles = stats().handles;
  assert.equal(await model.chat([ask(await readFile(files.red!))], options), red);
  assert.equal(await model.chat([ask({ bytes: await readFile(files.red!) })], options), red);
  assert.equal(
    await model.chat(
      [
        {
          ...ask(files.red),
          content: [
            { type: "image_url", image_url: { url: files.red } },
            { type: "text", text: "What?" },
          ],
        },
      ],
      options,
    ),
    red,
  );
  assert.notEqual(await model.chat([ask(files.blue)], options), red);
  const prompt = model.tokenizer.applyChatTemplate([ask(1)], { addGenerationPrompt: true });
  assert.equal((await model.generate(prompt, { ...options, images: [files.red!] })).trim(), red);
  const two = [
    {
      role: "user",
      content: [
        { type: "image", image: files.red },
        { type: "text", text: "and" },
        { type: "image", image: files.blue, maxPixels: 128 },
      ],
    },
  ];
  const other = [
    {
      role: "user",
      content: [
        { type: "image", image: files.blue },
        { type: "text", text: "and" },
        { type: "image", image: files.red },
      ],
    },
  ];
  assert.notEqual(await model.chat(two, options), await model.chat(other, options));
  assert.equal(stats().handles, handles, "tensors were left behind");
  // What a user types stays text: no place for an image comes of it.
  await model.chat([{ role: "user", content: "<|image_pad|> is text" }], options);
});

test("prompts with images share passes through the model, and give what each gives alone", async () => {
  using model = await load();
  const conversations = [
    [ask(files.red)],
    [{ role: "user", content: "No image at all, but a longer text than the others have." }],
    [
      {
        ...ask(files.blue),
        content: [...ask(files.blue).content, { type: "image", image: files.green, maxPixels: 128 }],
      },
    ],
    [ask(files.green, "Which colour is it?")],
    [ask(files.red), { role: "assistant", content: "Red." }, ask(files.blue, "And this?")],
    [{ role: "user", content: "Why?" }],
    [ask(files.blue)],
  ];
  // Regions of the cache are taken again by prompts that wait, some while others go on; for 300 tokens it has to grow.
  for (const options of [{ maxNewTokens: 40 }, { maxNewTokens: 60, stop: ["e", "a"] }, { maxNewTokens: 300 }]) {
    const alone: string[] = [];
    for (const one of conversations) alone.push(await model.chat(one, options));
    assert.ok(new Set(alone).size > 4, "the answers tell images apart");
    for (const batch of [1, 3, 7])
      assert.deepEqual(await model.chat(conversations, { ...options, batch }), alone, `in batches of ${batch}`);
  }
  const handles = stats().handles;
  const prompts = [files.red!, files.blue!].map((image) =>
    model.tokenizer.applyChatTemplate([ask(image)], { addGenerationPrompt: true }),
  );
  const both = await model.generate([...prompts, "and"], {
    images: [[files.red!], [files.blue!], []],
    maxNewTokens: 12,
    temperature: 0.7,
    seed: 5,
  });
  const first = await model.generate(prompts[0]!, {
    images: [files.red!],
    maxNewTokens: 12,
    temperature: 0.7,
    seed: 5,
  });
  assert.equal(both[0], first, "a prompt draws the same alone");
  assert.equal(stats().handles, handles, "tensors were left behind");
});

test("images where none are taken, or that are none, are errors that say so", async () => {
  using model = await load();
  await assert.rejects(model.chat([ask("https://example.org/a.png")]), /image 0 \(in message 0\): .*not fetched/);
  await assert.rejects(model.chat([ask(undefined)]), /has no image/);
  const flat = [files.red!] as unknown as string[][];
  await assert.rejects(model.generate(["one", "two"], { images: flat }), /a list for each of the 2 .*received 1 items/);
  await assert.rejects(model.generate(["one", "two"], { images: [[]] }), /a list for each of the 2 .*received 1 lists/);
  await assert.rejects(model.generate(["one"], { images: [[files.red!]] }), /has 0 places for images/);
  await assert.rejects(model.generate("no place", { images: [files.red!] }), /has 0 places for images/);
  using text = await loadModel(folder, { ...quiet, weights: "none" });
  text.module.sight = undefined;
  await assert.rejects(text.chat([ask(files.red)]), /takes text alone, and 1 image was given.*Qwen2-VL/);
  const rows = [{ messages: [ask(files.red), { role: "assistant", content: "Red." }] }];
  await assert.rejects(tokenizeRows(rows, text.tokenizer), /takes text alone/);
  const pair = {
    prompt: [ask(files.red)],
    chosen: [{ role: "assistant", content: "a" }],
    rejected: [{ role: "assistant", content: "b" }],
  };
  model.addLora({ rank: 2 });
  await assert.rejects(
    Promise.resolve(model.train([pair], { ...quiet, method: "dpo" })),
    /training on pairs takes text alone/,
  );
});

test("rows with images train the assistant's tokens alone, whatever column the images stand in", async () => {
  using model = await load();
  const { tokenizer, module } = model;
  const sight = module.sight!;
  const answer = { role: "assistant", content: "Red." };
  const bytes = await readFile(files.red!);
  const inside = [{ messages: [ask(bytes), answer] }];
  const beside = [{ images: [{ bytes, path: null }], messages: [ask(null), answer] }];
  const one = [{ image: bytes, messages: [ask(undefined), answer] }];
  const [want, ...others] = await Promise.all(
    [inside, beside, one].map(async (rows) => (await tokenizeRows(rows, tokenizer, { sight })).examples[0]!),
  );
  for (const other of others) assert.deepEqual(other, want);
  const shown = want!.ids.filter((id) => id === sight.imageToken).length;
  assert.equal(shown, want!.pictures![0]!.tokens);
  assert.equal(shown, 6); // 24 x 16 in tokens of 8 x 8
  const trained = [...want!.ids].filter((_, i) => want!.labels[i] !== IGNORED);
  assert.equal(tokenizer.decode(trained), "Red.<|im_end|>\n");
  const [first] = (
    await Dataset.from([{ image: bytes }]).preview(model, {
      format: (row) => [ask(row.image), answer],
    })
  ).rows;
  assert.equal(first!.examples[0]!.total, want!.ids.length);
  // A cut through an image is an error; behind it, it is a cut.
  const cut = (maxLength: number) => tokenizeRows(inside, tokenizer, { sight, maxLength });
  await assert.rejects(cut(8), /Row 0 of the data set: maxLength 8 cuts one of its images/);
  assert.equal((await cut(want!.ids.length - 2)).examples[0]!.pictures!.length, 1);
});

test("a LoRA on the language layers learns what colour an image has; saved, merged and exported it still knows", async () => {
  const colours = ["red", "blue", "green"];
  const bytes = await Promise.all(colours.map((name) => readFile(files[name]!)));
  const rows = Array.from({ length: 24 }, (_, i) => ({ image: bytes[i % 3]!, answer: colours[i % 3]! }));
  const data = Dataset.from(rows); // a binary column
  const format = (row: { image: unknown; answer: string }) => [
    ask(row.image),
    { role: "assistant", content: row.answer },
  ];
  const shown = toBundle(data)["text/html"] as string;
  assert.equal(shown.match(/<img src="data:image\/png;base64,/g)?.length, 8);
  assert.ok("image/png" in toBundle(data.at(0)!.image));
  using model = await load();
  model.addLora({
    rank: 8,
    alpha: 32,
    target: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    seed: 1,
  });
  assert.ok(model.parameters().every((p) => !p.trainable || p.name.includes("language_model")));
  const run = await model.train(data, {
    ...quiet,
    format,
    steps: 40,
    batch: 6,
    lr: 5e-3,
    seed: 3,
    validation: data.head(3),
  });
  assert.ok(run.best!.validationLoss < 0.1, `validation loss ${run.best!.validationLoss}`);
  // Packed or padded, the loss of a step is the same.
  const losses: number[] = [];
  for (const packing of [true, false]) {
    using fresh = await load();
    fresh.addLora({ rank: 2, seed: 1 });
    const options = { ...quiet, format, packing, steps: 1, batch: 6, lr: 1e-3 };
    losses.push((await fresh.train(rows.slice(0, 6), options)).loss);
  }
  const [one, other] = losses as [number, number];
  assert.ok(Math.abs(one - other) < 1e-5, `${one} packed, ${other} padded`);
  const knows = async (asked: Model): Promise<void> => {
    for (const name of colours) assert.equal(await asked.chat([ask(files[name])], { maxNewTokens: 8 }), name);
  };
  await knows(model);
  const measured = await model.evaluate(data.head(3), {
    ...quiet,
    format,
    metrics: ["exactMatch", "loss", "accuracy"],
  });
  assert.equal(measured.exactMatch, 1);
  assert.ok(measured.loss! < 0.1);
  const out = join(folder, "out");
  await model.save(join(out, "adapter"));
  using again = await load();
  await again.loadAdapter(join(out, "adapter"));
  await knows(again);
  await model.merge();
  await model.export(join(out, "merged"));
  using merged = await loadModel(join(out, "merged"), quiet);
  assert.deepEqual(merged.module.sight!.settings, model.module.sight!.settings);
  await knows(merged);
});
