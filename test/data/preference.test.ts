import assert from "node:assert/strict";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { describeMask } from "../../src/data/mask.js";
import { type PairOptions, promptLength, tokenizePairs } from "../../src/data/preference.js";
import { DataError } from "../../src/errors.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";

const fixtures: string = join(import.meta.dirname, "../../../test/fixtures/hub");
let llama: Tokenizer;
let chatml: Tokenizer;
before(async () => {
  llama = await Tokenizer.fromFolder(join(fixtures, "llama"));
  chatml = await Tokenizer.fromFolder(join(fixtures, "chatml"));
});

const row = { prompt: "the old cat sings in the river:", chosen: " the old boat", rejected: " a boat in the river" };
const one = async (given: unknown, tokenizer: Tokenizer, options: PairOptions = {}) =>
  (await tokenizePairs([given], tokenizer, options)).pairs[0]!;

describe("pairs of texts", () => {
  it("share the prompt's ids, which are those at inference, and train the answers with one EOS", async () => {
    for (const tokenizer of [llama, chatml]) {
      const pair = await one(row, tokenizer);
      const prompt = tokenizer.encode(row.prompt, { addSpecialTokens: "before" });
      for (const example of [pair.chosen, pair.rejected]) {
        assert.deepEqual([...example.ids.subarray(0, prompt.length)], prompt);
        assert.equal(promptLength(example), prompt.length);
        assert.equal(example.ids.at(-1), tokenizer.eosId);
        assert.deepEqual(example.labels.subarray(prompt.length), example.ids.subarray(prompt.length));
      }
      assert.match(describeMask(pair.rejected, tokenizer), /⟦ ?a boat in the river/);
    }
  });

  it("are read through a format", async () => {
    const pair = await one({ q: "the cat:", good: " a", bad: " b" }, llama, {
      format: (r) => ({ prompt: r.q, chosen: r.good, rejected: r.bad }),
    });
    assert.deepEqual(pair, await one({ prompt: "the cat:", chosen: " a", rejected: " b" }, llama));
  });

  it("are cut as TRL cuts: the prompt on its left behind its BOS, then both together on the right", async () => {
    const whole = await one(row, llama);
    const prompt = promptLength(whole.chosen);
    assert.ok(prompt > 4);
    const short = await one(row, llama, { maxPromptLength: 4 });
    assert.equal(promptLength(short.chosen), 4);
    assert.equal(short.chosen.ids[0], llama.bosId);
    assert.deepEqual(short.chosen.ids.subarray(1), whole.chosen.ids.subarray(prompt - 3));
    const most = prompt + 3;
    const { pairs, report } = await tokenizePairs([row], llama, { maxLength: most });
    assert.equal(pairs[0]!.rejected.ids.length, most);
    assert.deepEqual(pairs[0]!.rejected.ids, whole.rejected.ids.subarray(0, most));
    assert.equal(report.truncated, 1);
    const longer = { ...row, prompt: row.prompt.repeat(3) };
    const kept = await tokenizePairs([longer, row], llama, { maxLength: most });
    assert.deepEqual([kept.report.kept, kept.report.untrained], [1, 1]);
    const dropped = await tokenizePairs([longer, row], llama, {
      maxLength: whole.rejected.ids.length,
      overlong: "drop",
    });
    assert.deepEqual([dropped.report.kept, dropped.report.dropped], [1, 1]);
    await assert.rejects(tokenizePairs([longer], llama, { maxLength: most, overlong: "error" }), /Row 0.*maxLength/);
    await assert.rejects(tokenizePairs([longer], llama, { maxLength: most }), /nothing to train on.*maxPromptLength/);
  });

  it("say which row is no pair, and what came", async () => {
    for (const [given, said] of [
      [{ prompt: "a", chosen: "b" }, /Row 0.*"rejected" is nothing/],
      [{ chosen: "b", rejected: "c" }, /Row 0.*"prompt" is nothing/],
      [{ prompt: "a", chosen: 1, rejected: "c" }, /"chosen" is .*1/],
      ["text", /Row 0.*it is/],
      [{ prompt: [{ role: "user", content: "a" }], chosen: "b", rejected: "c" }, /all texts or all lists/],
    ] as const) {
      await assert.rejects(
        tokenizePairs([given], llama),
        (error) => error instanceof DataError && said.test(error.message),
      );
    }
    await assert.rejects(tokenizePairs([], llama), /no rows/);
  });
});

describe("pairs of messages", () => {
  const user = { role: "user", content: "the cat?" };
  const better = { role: "assistant", content: "the old cat." };
  const worse = { role: "assistant", content: "a boat." };

  it("train what follows the generation prompt, in the template's own text", async () => {
    const pair = await one({ prompt: [user], chosen: [better], rejected: [worse] }, chatml);
    assert.deepEqual([...pair.chosen.ids], chatml.encodeChat([user, better]));
    assert.deepEqual([...pair.rejected.ids], chatml.encodeChat([user, worse]));
    assert.equal(promptLength(pair.chosen), chatml.encodeChat([user], { addGenerationPrompt: true }).length);
    assert.match(describeMask(pair.chosen, chatml), /assistant\n⟦the old cat\.<\|im_end\|>\n⟧$/);
  });

  it("have as prompt what both conversations begin with, where none is given", async () => {
    const earlier = [user, better, { role: "user", content: "a boat?" }];
    const given = { chosen: [...earlier, better], rejected: [...earlier, worse] };
    const want = await one({ prompt: earlier, chosen: [better], rejected: [worse] }, chatml);
    assert.deepEqual(await one(given, chatml), want);
    const twice = await one({ prompt: earlier, chosen: [better, user, better], rejected: [worse] }, chatml);
    assert.equal(promptLength(twice.chosen), promptLength(want.chosen));
  });

  it("are refused where the template does not write the beginning the same way", async () => {
    const parts = { model: { type: "BPE", vocab: { a: 0 }, merges: [], unk_token: "a" } };
    const none = { normalizer: null, pre_tokenizer: null, decoder: null, post_processor: null };
    const counting = Tokenizer.fromJson(JSON.parse(JSON.stringify({ ...parts, ...none })), {
      chat_template: "{{ messages | length }}{% for m in messages %}{{ m.content }};{% endfor %}",
    });
    await assert.rejects(
      tokenizePairs([{ prompt: [user], chosen: [better, user, better], rejected: [worse] }], counting),
      (error) => error instanceof DataError && /differently/.test(error.message),
    );
  });
});
