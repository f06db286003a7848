/** Files of a tokenizer that somebody made to do harm, or that are damaged: an error that says what is wrong, soon, and nothing else. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { TokenizerError } from "../../src/errors.js";
import { ChatTemplate } from "../../src/hub/chat.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");
const bpe = (more: object = {}) => ({ type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"], ...more });
const whole = (more: object = {}) => ({
  model: bpe(),
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  ...more,
});
const split = (pattern: unknown) => ({ type: "Split", pattern, behavior: "Isolated", invert: false });

function refused(run: () => unknown, message: RegExp, seconds = 2): void {
  const begin = performance.now();
  let given: unknown;
  const named = () => {
    given = run();
    assert.fail(`${message} was expected, but it gave ${String(given).slice(0, 80)}`);
  };
  assert.throws(named, (error: Error) => {
    assert.ok(error instanceof TokenizerError, `${error.name}: ${error.message}`);
    assert.match(error.message, message);
    return true;
  });
  const took = performance.now() - begin;
  assert.ok(took < seconds * 10_000, `${took} ms`);
}

describe("a tokenizer.json that cannot be used", () => {
  it("is refused with what is wrong", () => {
    assert.deepEqual(Tokenizer.fromJson(whole()).encode("aab"), [0, 2]);
    let nested: object = split({ String: "x" });
    for (let i = 0; i < 500; i++) nested = { type: "Sequence", pretokenizers: [nested] };
    const added = (token: unknown) => whole({ added_tokens: [token] });
    const cases: [object, RegExp][] = [
      [{}, /"model" is nothing/],
      [whole({ model: [] }), /"model" is an array/],
      [whole({ model: bpe({ vocab: 3 }) }), /"model.vocab" is 3/],
      [whole({ model: bpe({ vocab: { a: "0" } }) }), /token "a" has the id "0"/],
      [whole({ model: bpe({ vocab: { a: 4e9 } }) }), /id 4000000000, expected a whole number below 1310/],
      [whole({ model: bpe({ vocab: { a: -1 } }) }), /id -1/],
      [whole({ model: bpe({ vocab: { a: 0.5 } }) }), /id 0.5/],
      [whole({ model: bpe({ vocab: { a: 0, b: 0 } }) }), /"b" has the id 0, as another/],
      [whole({ model: bpe({ merges: undefined }) }), /"model.merges" is nothing/],
      [whole({ model: bpe({ merges: ["a"] }) }), /merge 0 is "a"/],
      [whole({ model: bpe({ merges: ["a b", "a b b"] }) }), /merge 1 is "a b b"/],
      [whole({ model: bpe({ merges: [["a", 3]] }) }), /merge 0 is an array/],
      [whole({ model: bpe({ merges: ["a b", ["a", "b"]] }) }), /merge 1 is an array/],
      [whole({ model: bpe({ merges: [" ab"] }) }), /not empty/],
      [whole({ model: bpe({ merges: ["a c"] }) }), /needs the token "c"/],
      [whole({ model: bpe({ merges: ["ab ab"] }) }), /needs the token "abab"/],
      [whole({ model: bpe({ merges: ["constructor b"] }) }), /needs the token "constructor"/],
      [whole({ model: { type: "Unigram", vocab: [["a"]], unk_id: 0 } }), /entry 0/],
      [whole({ model: { type: "Unigram", vocab: [["a", "1"]], unk_id: 0 } }), /entry 0/],
      [whole({ model: { type: "Unigram", vocab: [["a", 1]], unk_id: 7 } }), /unk_id" is 7/],
      [whole({ model: bpe({ unk_token: {} }) }), /unk_token" is an object/],
      [added("x"), /"added_tokens" 0 is "x"/],
      [added({ id: 2 ** 40, content: "x" }), /added token "x" has the id/],
      [added({ id: 3, content: "x", special: "yes" }), /"special": "yes"/],
      [whole({ added_tokens: { a: 1 } }), /"added_tokens" is an object/],
      [
        whole({
          added_tokens: [
            { id: 3, content: "x" },
            { id: 3, content: "y" },
          ],
        }),
        /"x" and "y" have the same id 3/,
      ],
      [whole({ normalizer: "NFC" }), /"normalizer" is "NFC"/],
      [whole({ normalizer: { type: "Magic" } }), /cannot be used/],
      [whole({ pre_tokenizer: split({ Regex: "(" }) }), /cannot be used/],
      [whole({ pre_tokenizer: split({ Regex: 3 }) }), /has the pattern an object/],
      [whole({ pre_tokenizer: split({ Regex: "a".repeat(200_000) }) }), /200000 characters/],
      [whole({ pre_tokenizer: split("x") }), /has the pattern "x"/],
      [whole({ pre_tokenizer: { type: "Split" } }), /is a Split without a pattern/],
      [whole({ pre_tokenizer: nested }), /nested deeper/],
      [whole({ decoder: { type: "Sequence", decoders: 3 } }), /cannot be used/],
      [
        whole({
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
            pair: [],
          },
        }),
        /adds "<s>", which is not in the vocabulary/,
      ],
    ];
    for (const [source, message] of cases) refused(() => Tokenizer.fromJson(source), message);
  });

  it("is refused or read when it is cut", async () => {
    const text = await readFile(join(fixtures, "llama/tokenizer.json"), "utf8");
    const source = JSON.parse(text);
    for (let length = 0; length < source.model.merges.length; length += 9) {
      const cut = structuredClone(source);
      cut.model.merges.length = length;
      assert.equal(Tokenizer.fromJson(cut).vocabSize, 340); // fewer merges are other ids, no danger
      cut.model.merges = source.model.merges;
      delete cut.model.vocab[[...cut.model.merges[length]].flat().join("").replace(" ", "")];
      refused(() => Tokenizer.fromJson(cut), /needs the token/);
    }
  });

  it("cannot take the time of a text by its patterns, in a split, a normalizer or a decoder", () => {
    const terrible = { Regex: "(?:a+)+$" };
    const evil = `${"a".repeat(60)}b`;
    const parts: [object, (tokenizer: Tokenizer) => unknown][] = [
      [{ pre_tokenizer: split(terrible) }, (t) => t.encode(evil)],
      [{ normalizer: { type: "Replace", pattern: terrible, content: "x" } }, (t) => t.encode(evil)],
      [
        {
          decoder: { type: "Replace", pattern: terrible, content: "x" },
          model: bpe({ vocab: { [evil]: 0 }, merges: [] }),
        },
        (t) => t.decode([0]),
      ],
    ];
    for (const [part, use] of parts) {
      const tokenizer = Tokenizer.fromJson(whole(part));
      refused(() => use(tokenizer), /A pattern of tokenizer.json was stopped on a text of .* took more than 1/);
    }
    // Patterns of one's own are read all the same.
    const own = Tokenizer.fromJson(whole({ pre_tokenizer: split({ Regex: "a(?=b)|b" }) }));
    assert.deepEqual(own.encode("ab"), [0, 1]);
    assert.equal(Tokenizer.fromJson(whole()).encode("ab".repeat(100_000)).length, 100_000);
  });
});

describe("a tokenizer_config.json that cannot be used", () => {
  it("is refused with the field", () => {
    const cases: [object, RegExp][] = [
      [{ bos_token: 1 }, /"bos_token" is 1/],
      [{ eos_token: ["</s>"] }, /"eos_token" is an array/],
      [{ pad_token: {} }, /"pad_token" is an object without "content"/],
      [{ unk_token: { content: 3 } }, /"unk_token" is an object/],
      [{ tokenizer_class: 7 }, /"tokenizer_class" is 7/],
      [{ add_bos_token: "yes" }, /"add_bos_token" is "yes"/],
      [{ add_eos_token: 1 }, /"add_eos_token" is 1/],
      [{ clean_up_tokenization_spaces: "no" }, /"clean_up_tokenization_spaces" is "no"/],
      [{ added_tokens_decoder: [] }, /"added_tokens_decoder" is an array/],
      [{ added_tokens_decoder: { x: { content: "a" } } }, /has the id "x"/],
      [{ added_tokens_decoder: { 3: { content: 3 } } }, /for the id 3/],
      [{ added_tokens_decoder: { 3: null } }, /has null for the id 3/],
    ];
    for (const [config, message] of cases) refused(() => Tokenizer.fromJson(whole(), config), message);
    const polluted = JSON.parse('{"__proto__":{"bos_token":"a"},"constructor":{"prototype":{"x":1}}}');
    assert.equal(Tokenizer.fromJson(whole(), polluted).bosId, undefined);
    assert.equal(({} as Record<string, unknown>).x, undefined);
  });
});

describe("a chat template that means harm", () => {
  const render = (source: string, limits = {}) =>
    new ChatTemplate(source, { seconds: 0.5, ...limits }).render({ messages: [{ role: "user", content: "x" }] });

  it("is stopped or refused", () => {
    const double = (start: string, step: string, end: string) =>
      `{% set n = namespace(v=${start}) %}{% for i in range(64) %}{% set n.v = ${step} %}{% endfor %}${end}`;
    const cases: [string, RegExp][] = [
      [double("[1]", "n.v + n.v", "{{ n.v }}"), /a list of more than 1000000/],
      [double("'x'", "n.v + n.v", "{{ n.v }}"), /more than 8000000 characters/],
      [double("'x'", "n.v * 1000", ""), /failed|characters/],
      [`${double("'xxxxxxxx'", "n.v | replace('x', 'xxxxxxxxxxxxxxxx')", "")}`, /characters|stopped/],
      [
        `{% set n = namespace(v=[]) %}{% for i in range(100000) %}{% for j in range(100000) %}{% set n.v = n.v + [i] %}{% endfor %}{% endfor %}`,
        /stopped|more than/,
      ],
      [
        `{% for i in range(100000) %}{% for j in range(100000) %}{{ range(100000) | length }}{% endfor %}{% endfor %}`,
        /stopped|more than/,
      ],
      [`{{ range(100000) | map('string') | join(range(100000) | join) }}`, /failed|characters|stopped/],
      [`{{ messages | tojson(indent=1000000000) }}`, /failed|characters|stopped/],
      [`{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}`, /failed|more than/],
      [`{{ messages[0].constructor.constructor('return 1')() }}`, /failed/],
      [`{{ process.exit(3) }}`, /failed/],
      [`{% include 'secret' %}`, /cannot be read|failed/],
      [`{% import 'os' as os %}`, /cannot be read|failed/],
      [`{{ `.repeat(5000), /cannot be read/],
      [`${"{% if true %}".repeat(20000)}`, /cannot be read/],
      [`{{ ${"(".repeat(50000)}1${")".repeat(50000)} }}`, /cannot be read|failed/],
      ["x".repeat(1_000_001), /1000001 characters/],
    ];
    for (const [source, message] of cases) refused(() => render(source), message, 4);
    // What is not there is nothing, as in Jinja.
    for (const nothing of ["messages.__proto__.x", "globalThis.x", "''.__class__", "messages[0].constructor.name"])
      assert.equal(render(`{{ ${nothing} }}`), "");
    assert.equal(render("{{ messages[0].content }}"), "x");
  });
});
