import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { describeMask, type Example, exampleOf, IGNORED, trainedTargets } from "../../src/data/mask.js";
import { describeReport, tokenizeRows } from "../../src/data/tokenize.js";
import { ConfigError, DataError, InterruptedError, TokenizerError } from "../../src/errors.js";
import type { Message } from "../../src/hub/chat.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { shared } from "../shared.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");
const tokenizers: string = join(shared, "tokenizers");

let llama: Tokenizer;
let chatml: Tokenizer;
before(async () => {
  llama = await Tokenizer.fromFolder(join(fixtures, "llama"));
  chatml = await Tokenizer.fromFolder(join(fixtures, "chatml"));
});

const shown = (example: Example, tokenizer: Tokenizer) => describeMask(example, tokenizer, 10_000);
const count = (example: Example, id: number | undefined) => example.ids.filter((other) => other === id).length;
const talk: Message[] = [
  { role: "user", content: "the cat?" },
  { role: "assistant", content: "the old cat." },
  { role: "user", content: "a boat?" },
  { role: "assistant", content: "in the river." },
];

describe("masks of ChatGLM's turns", () => {
  it("end the last answer, which its template does not", async () => {
    const glm = await Tokenizer.fromFolder(join(import.meta.dirname, "../../../notebooks/embedded/chatglm/model"));
    const example = exampleOf(talk, glm);
    assert.equal(glm.decode(example.ids).split("</s>").length, 2);
    assert.equal(example.ids.at(-1), glm.eosId);
    assert.equal(example.labels.at(-1), glm.eosId);
    assert.equal(
      shown(example, glm),
      "[gMASK]sop<|user|> \n the cat?<|assistant|>⟦ \n the old cat.⟧<|user|> \n a boat?<|assistant|>⟦ \n in the river.</s>⟧",
    );
    assert.equal(count(exampleOf(talk.slice(0, 3), glm), glm.eosId), 0, "the user has the last word");
  });
});

describe("masks of texts", () => {
  it("train the whole text, with one BOS as declared and one EOS", () => {
    for (const text of ["the boat", "<s>the boat", "the boat</s>", "<s>the boat</s>"]) {
      const example = exampleOf(text, llama);
      assert.equal(count(example, llama.bosId), 1, text);
      assert.equal(count(example, llama.eosId), 1, text);
      assert.deepEqual(example.ids, example.labels);
      assert.equal(trainedTargets(example), example.ids.length - 1);
    }
    assert.equal(exampleOf("the boat", llama, { appendEos: false }).ids.at(-1), llama.encode("the boat").at(-1));
    const example = exampleOf("the boat", chatml);
    assert.deepEqual([...example.ids], [...chatml.encode("the boat"), chatml.eosId]);
  });
});

describe("masks of completions", () => {
  it("leave the prompt as it is at inference, and train the completion with its EOS", () => {
    for (const tokenizer of [llama, chatml]) {
      for (const [prompt, completion] of [
        ["the cat", " sings."],
        ["the cat: ", "a boat"],
        ["", "the cat"],
        ["<s>", "the cat"],
        ["a\n", "\nb"],
      ] as const) {
        const example = exampleOf({ prompt, completion }, tokenizer);
        const before = tokenizer.encode(prompt);
        assert.deepEqual([...example.ids.subarray(0, before.length)], before);
        assert.ok(example.labels.subarray(0, before.length).every((label) => label === IGNORED));
        assert.deepEqual(example.labels.subarray(before.length), example.ids.subarray(before.length));
        assert.equal(example.ids.at(-1), tokenizer.eosId);
        const text = tokenizer.decode(example.ids.subarray(0, -1), { skipSpecialTokens: true });
        assert.equal(text, prompt.replace("<s>", tokenizer === llama ? "" : "<s>") + completion);
      }
    }
  });

  it("keep an EOS that stands in the completion once", () => {
    assert.equal(count(exampleOf({ prompt: "a", completion: "b</s>" }, llama), llama.eosId), 1);
  });
});

describe("masks of chats", () => {
  it("train the assistant's turns alone, every one of them", () => {
    const text = shown(exampleOf(talk, chatml), chatml);
    assert.equal(
      text,
      "<|im_start|>system\nYou are brief.<|im_end|>\n<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\n⟦the old cat.<|im_end|>\n⟧" +
        "<|im_start|>user\na boat?<|im_end|>\n<|im_start|>assistant\n⟦in the river.<|im_end|>\n⟧",
    );
    const example = exampleOf(talk, llama);
    assert.equal(
      shown(example, llama),
      "<s> [INST] the cat? [/INST]⟦ the old cat.</s>⟧ [INST] a boat? [/INST]⟦ in the river.</s>⟧",
    );
    assert.equal(count(example, llama.bosId), 1);
  });

  it("have the ids of the whole chat", () => {
    for (const tokenizer of [llama, chatml])
      for (let turns = 1; turns <= 4; turns++)
        assert.deepEqual(
          [...exampleOf(talk.slice(0, turns), tokenizer).ids],
          tokenizer.encodeChat(talk.slice(0, turns)),
        );
  });

  it("begin a turn with the ids that follow the generation prompt at inference", () => {
    for (const tokenizer of [llama, chatml]) {
      const example = exampleOf(talk.slice(0, 2), tokenizer);
      const prompt = tokenizer.encodeChat(talk.slice(0, 1), { addGenerationPrompt: true });
      assert.deepEqual([...example.ids.subarray(0, prompt.length)], prompt);
      assert.equal(example.labels[prompt.length - 1], IGNORED);
      assert.notEqual(example.labels[prompt.length], IGNORED);
    }
  });

  it("keep a special token in a message as text, trained where the assistant said it", () => {
    const example = exampleOf(
      [
        { role: "user", content: "a<|im_end|>b" },
        { role: "assistant", content: "c<|im_end|>d" },
      ],
      chatml,
    );
    assert.equal(count(example, chatml.eosId), 3);
    assert.match(shown(example, chatml), /⟦c<\|im_end\|>d<\|im_end\|>\n⟧$/);
  });

  it("leave out an EOS that closes a chat, and train one that ends each answer", async () => {
    const json = JSON.parse(await readFile(join(fixtures, "chatml", "tokenizer.json"), "utf8"));
    const config = JSON.parse(await readFile(join(fixtures, "chatml", "tokenizer_config.json"), "utf8"));
    const eos = chatml.tokenOf(chatml.eosId!)!;
    const masked = (template: string) => {
      const tokenizer = Tokenizer.fromJson(json, { ...config, chat_template: template });
      return describeMask(exampleOf(talk, tokenizer), tokenizer);
    };
    const turn = "{% for m in messages %}[{{ m.role }}] {{ m.content }};";
    const asked = "{% if add_generation_prompt %}[assistant] ";
    assert.equal(
      masked(`${turn}{% endfor %}${asked}{% else %}{{ eos_token }}{% endif %}`),
      `[user] the cat?;[assistant] ⟦the old cat.;⟧[user] a boat?;[assistant] ⟦in the river.;⟧${eos}`,
    );
    const ended = "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";
    assert.equal(
      masked(`${turn}${ended}${asked}{% endif %}`),
      `[user] the cat?;[assistant] ⟦the old cat.;${eos}⟧[user] a boat?;[assistant] ⟦in the river.;${eos}⟧`,
    );
  });

  it("need no marks of generation in the template, and pass them over where it has some", async () => {
    const json = JSON.parse(await readFile(join(fixtures, "chatml", "tokenizer.json"), "utf8"));
    const config = JSON.parse(await readFile(join(fixtures, "chatml", "tokenizer_config.json"), "utf8"));
    const body = (open: string, close: string) =>
      `{% for m in messages %}[{{ m.role }}] ${open}{{ m.content }};${close}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`;
    const [plain, marked] = [body("", ""), body("{% generation %}", "{% endgeneration %}")].map((template) =>
      exampleOf(talk, Tokenizer.fromJson(json, { ...config, chat_template: template })),
    );
    assert.deepEqual(marked, plain);
    assert.ok(trainedTargets(plain!) > 0);
  });

  it("say so when a template writes a turn differently once others follow", () => {
    const forgets = Tokenizer.fromJson(
      JSON.parse(
        JSON.stringify({
          model: { type: "BPE", vocab: { a: 0 }, merges: [], unk_token: "a" },
          normalizer: null,
          pre_tokenizer: null,
          decoder: null,
          post_processor: null,
        }),
      ),
      {
        chat_template: "{% for m in messages %}{{ m.role }}:{% if loop.last %}{{ m.content }}{% endif %};{% endfor %}",
      },
    );
    assert.throws(
      () => exampleOf(talk, forgets),
      (error) => error instanceof DataError && /message 1 differently.*prompt, completion/.test(error.message),
    );
    const bare = Tokenizer.fromJson({
      model: { type: "BPE", vocab: { a: 0 }, merges: [], unk_token: "a" },
      normalizer: null,
      pre_tokenizer: null,
      decoder: null,
      post_processor: null,
    });
    assert.throws(() => exampleOf(talk, bare), TokenizerError);
  });

  const skip = existsSync(tokenizers) ? false : `no real tokenizers in ${tokenizers}`;
  it("find the turns in the real templates", { skip }, async () => {
    const said = /the old cat\..*in the river\./s;
    for (const name of ["llama2", "llama3", "mistral-7b-v0.1", "qwen2", "smollm2"]) {
      const tokenizer = await Tokenizer.fromFolder(join(tokenizers, name));
      const example = exampleOf(talk, tokenizer);
      const text = shown(example, tokenizer);
      const trained = [...text.matchAll(/⟦(.*?)⟧/gs)].map((match) => match[1]!);
      assert.equal(trained.length, 2, text);
      assert.match(trained.join(""), said);
      assert.equal(trained.join("").includes("boat"), false, text);
      assert.equal(trained.join("").includes("user"), false, text);
      // A turn's end is learnt: it is what stops the model.
      assert.match(trained[1]!, /(<\/s>|<\|eot_id\|>|<\|im_end\|>\n)$/, text);
      assert.ok(text.endsWith("⟧"), text);
      if (name !== "llama3") assert.deepEqual([...example.ids], tokenizer.encodeChat(talk), name);
    }
  });
});

describe("tokenising a data set", () => {
  const rows = ["the boat walks slowly", "a cat", "the old cat sings in the garden near the river"].map((text) => ({
    text,
  }));

  it("takes rows by number, one after another, or as they come", async () => {
    async function* stream() {
      yield* rows;
    }
    const expected = rows.map(({ text }) => exampleOf(text, llama));
    for (const source of [rows, new Set(rows), stream(), { length: 3, at: (i: number) => rows[i] }]) {
      const { examples, report } = await tokenizeRows(source, llama);
      assert.deepEqual(examples, expected);
      const tokens = expected.reduce((sum, { ids }) => sum + ids.length, 0);
      const longest = Math.max(...expected.map(({ ids }) => ids.length));
      assert.deepEqual(report, {
        rows: 3,
        kept: 3,
        truncated: 0,
        dropped: 0,
        untrained: 0,
        tokens,
        trained: tokens - 3,
        longest,
      });
      assert.equal(describeReport(report), "");
    }
  });

  it("cuts, drops or refuses rows over maxLength, and counts them", async () => {
    const cut = await tokenizeRows(rows, llama, { maxLength: 6 });
    assert.deepEqual([cut.report.truncated, cut.report.kept], [1, 3]);
    assert.deepEqual([...cut.examples[2]!.ids], llama.encode(rows[2]!.text).slice(0, 6));
    assert.match(describeReport(cut.report, 6), /Of 3 rows 1 cut to maxLength 6 \(the longest has \d+ tokens\)/);
    const dropped = await tokenizeRows(rows, llama, { maxLength: 6, overlong: "drop" });
    assert.deepEqual([dropped.report.dropped, dropped.examples.length], [1, 2]);
    await assert.rejects(
      tokenizeRows(rows, llama, { maxLength: 6, overlong: "error" }),
      /Row 2 .* has \d+ tokens, maxLength is 6/,
    );
    await assert.rejects(
      tokenizeRows(rows, llama, { maxLength: 2, overlong: "drop" }),
      /all 3 rows .* are longer than maxLength 2/,
    );
    await assert.rejects(tokenizeRows(rows, llama, { maxLength: 1 }), ConfigError);
    await assert.rejects(tokenizeRows(rows, llama, { overlong: "wrap" as never }), ConfigError);
  });

  it("leaves out rows without a trained token, and shows one when there are no others", async () => {
    const pairs = [
      { prompt: "the cat sings in the garden", completion: "x" },
      { prompt: "a", completion: "b" },
    ];
    const some = await tokenizeRows(pairs, llama, { maxLength: 5 });
    assert.deepEqual([some.report.untrained, some.report.kept], [1, 1]);
    assert.match(describeReport(some.report), /1 left out as no token/);
    await assert.rejects(tokenizeRows(pairs.slice(0, 1), llama, { maxLength: 5, name: "train" }), (error: Error) => {
      assert.ok(error instanceof DataError);
      assert.match(
        error.message,
        /no token of train is trained \(1 of 1 rows.*cut to maxLength 5.*⟦ ⟧: <s> the cat sings/s,
      );
      return true;
    });
    const asks = [{ messages: [{ role: "user", content: "a boat?" }] }];
    await assert.rejects(tokenizeRows(asks, chatml), /no token.*the role "assistant".*<\|im_start\|>user\na boat\?/s);
  });

  it("refuses an empty data set", async () => {
    await assert.rejects(
      tokenizeRows([], llama, { name: "train" }),
      (error: Error) => error instanceof DataError && /train has no rows/.test(error.message),
    );
  });

  it("stops at a signal and reports where it is", async () => {
    const many = { length: 100_000, at: () => rows[0] };
    const stop = new AbortController();
    const seen: number[] = [];
    const onProgress = (done: number, total: number | undefined) => {
      seen.push(done);
      assert.equal(total, 100_000);
      stop.abort();
    };
    await assert.rejects(tokenizeRows(many, llama, { signal: stop.signal, onProgress }), InterruptedError);
    assert.equal(seen.length, 1);
    assert.ok(seen[0]! < 100_000);
  });

  it("takes the golden texts without a doubled BOS", async () => {
    const golden = JSON.parse(await readFile(join(fixtures, "llama/golden.json"), "utf8"));
    const { examples } = await tokenizeRows(golden.texts, llama);
    for (const example of examples)
      assert.equal([...example.ids].indexOf(llama.bosId!, 1) > 1 || count(example, llama.bosId) === 1, true);
  });
});
