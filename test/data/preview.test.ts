import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { tokenizePairs } from "../../src/data/preference.js";
import { tokenizeRows } from "../../src/data/tokenize.js";
import { toBundle } from "../../src/display/bundle.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { Dataset } from "../../src/index.js";

const tokenizer = await Tokenizer.fromFolder(
  fileURLToPath(new URL("../../../test/fixtures/hub/chatml", import.meta.url)),
);
const model = { tokenizer, config: { maxPositions: 128 } };

test("the preview's counts are those of the examples that train makes, for every kind of row", async () => {
  const kinds = {
    text: [{ text: "The sea is blue." }, { text: "Grass is green, and more of it is green." }],
    completion: [
      { prompt: "The sea is", completion: " blue" },
      { prompt: "A longer prompt about the coal:", completion: " black" },
    ],
    messages: [
      {
        messages: [
          { role: "user", content: "Hi" },
          { role: "assistant", content: "Hello there" },
          { role: "user", content: "And?" },
          { role: "assistant", content: "Nothing" },
        ],
      },
    ],
  };
  for (const [kind, rows] of Object.entries(kinds)) {
    for (const maxLength of [128, 12]) {
      const shown = await Dataset.from(rows as { text: string }[]).preview(model, { maxLength });
      const { report } = await tokenizeRows(rows, tokenizer, { maxLength }).catch(() => ({ report: undefined }));
      const examples = shown.rows.flatMap((row) => row.examples);
      const kept = examples.filter((e) => e.state === "kept" || e.state === "cut");
      assert.equal(
        kept.reduce((n, e) => n + e.trained, 0),
        report?.trained ?? 0,
        kind,
      );
      assert.equal(
        kept.reduce((n, e) => n + e.total, 0),
        report?.tokens ?? 0,
        kind,
      );
      for (const e of examples) {
        assert.equal(e.pieces.filter((p) => p.kind === "trained").length, e.trained);
        assert.equal(e.pieces.filter((p) => p.kind === "cut").length, e.cut);
        assert.equal(e.pieces.map((p) => p.text).join(""), tokenizer.decode(e.pieces.map((p) => p.id)));
      }
    }
  }
});

test("of pairs both answers are shown, cut as a run cuts them", async () => {
  const rows = [
    { prompt: "The sea is", chosen: " blue", rejected: " a thing that is often said to be green" },
    { prompt: "A much longer prompt about coal, and more of it:", chosen: " black", rejected: " white and cold" },
  ];
  const data = Dataset.from(rows);
  for (const cut of [{}, { maxLength: 14 }, { maxPromptLength: 4 }, { maxLength: 9, maxPromptLength: 5 }]) {
    const { pairs } = await tokenizePairs(rows, tokenizer, { maxLength: 128, ...cut });
    const shown = await data.preview(model, { method: "dpo", ...cut });
    const kept = shown.rows.flatMap((row) => row.examples).filter((e) => e.state === "kept" || e.state === "cut");
    const ids = kept.map((e) => e.pieces.filter((p) => p.kind !== "cut").map((p) => p.id));
    assert.deepEqual(
      ids,
      pairs.flatMap(({ chosen, rejected }) => [[...chosen.ids], [...rejected.ids]]),
    );
    assert.deepEqual(
      kept.map((e) => e.total),
      ids.map((one) => one.length),
    );
    for (const e of kept) assert.equal(e.pieces.filter((p) => p.kind === "cut").length, e.cut);
  }
  const [first, second] = (await data.preview(model, { method: "orpo", rows: 1 })).toText().split("\nrow ").slice(1);
  assert.match(first ?? "", /^0 chosen, .*\n {2}.*The sea is⟦ blue/);
  assert.match(second ?? "", /^0 rejected, .*\n {2}.*⟦ a thing/);
  const dropped = await data.preview(model, { method: "dpo", maxLength: 40, overlong: "drop" });
  assert.deepEqual([...new Set(dropped.rows.map((row) => row.examples[0]!.state))].sort(), ["dropped", "kept"].sort());
  await assert.rejects(Dataset.from([{ prompt: "a", chosen: 1 }]).preview(model, { method: "dpo" }), /"chosen" is 1/);
});

test("trained text stands in brackets, special tokens are named, the cut is marked; in HTML each by its colour", async () => {
  const rows = Dataset.from([{ prompt: "The <sea> is", completion: " blue\nand" }]);
  const shown = await rows.preview(model);
  const text = shown.toText();
  assert.match(text, /The <sea> is⟦ blue⏎and‹<\|im_end\|>›⟧/);
  assert.match(text, /row 0, \d+ of \d+ tokens trained/);
  const html = String((await toBundle(shown))["text/html"]);
  assert.ok(html.includes("&lt;|im_end|&gt;</code>"));
  assert.ok(!html.includes("<sea>"), "data is escaped");
  assert.ok(html.includes("⏎<br>"));
  const [example] = shown.rows[0]!.examples;
  const cut = await rows.preview(model, { maxLength: example!.total - 2 });
  assert.match(cut.toText(), /⟧✂.*‹<\|im_end\|>›✂/);
  assert.match(cut.toText(), /2 cut/);
  assert.deepEqual(cut.toTable().rows[0]!.slice(0, 3), [0, example!.trained - 2, example!.total - 2]);
  const out = await rows.preview(model, { maxLength: 4, overlong: "drop" });
  assert.match(out.toText(), /left out: longer than maxLength/);
  assert.ok(!out.toText().includes("⟦ blue"));
  assert.match((await rows.preview(model, { maxLength: 4 })).toText(), /no token of it is trained/);
});

test("characters of several tokens are shown once, long rows in their beginning and end", async () => {
  const shown = await Dataset.from([{ text: "so naïve 😀 漢字" }]).preview(model);
  assert.ok(shown.toText().includes("naïve 😀 漢字"));
  const long = await Dataset.from([{ prompt: "word ".repeat(18), completion: " end" }]).preview(model, {
    maxTokens: 10,
  });
  assert.match(long.toText(), /… \d+ more tokens …/);
  assert.match(long.toText(), /⟧$/);
});

test("packed rows stand together, with how full they are; format and rows are train's", async () => {
  const rows = Dataset.from(Array.from({ length: 12 }, (_, i) => ({ q: `Q${i}`, a: `A${i}` })));
  const format = (r: { q: string; a: string }) => ({ prompt: r.q, completion: r.a });
  const shown = await rows.preview(model, { format, packing: true, maxLength: 24, rows: 2 });
  assert.equal(shown.rows.length, 2);
  assert.ok(shown.rows.every((row) => row.examples.length > 1 && row.capacity === 24));
  assert.match(shown.toText(), /║/);
  assert.match(shown.toText(), /packed into 24, \d+% full/);
  assert.equal((await rows.preview(model, { format, rows: 3 })).rows.length, 3);
  await assert.rejects(rows.preview(model, { rows: 0 }), /rows must be a whole number/);
  await assert.rejects(rows.preview(model), /has none of the fields/);
  await assert.rejects(Dataset.from([]).preview(model), /no rows/);
});
