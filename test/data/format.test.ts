import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Format, formatter, type Row } from "../../src/data/format.js";
import { DataError } from "../../src/errors.js";

const read = (row: unknown, options: { format?: Format; textField?: string } = {}) => formatter(options)(row as Row, 7);
const fails = (run: () => unknown, message: RegExp) =>
  assert.throws(
    run,
    (error: Error) => error instanceof DataError && message.test(error.message) && /row 7/i.test(error.message),
  );

describe("formats", () => {
  it("read the fields that rows usually have", () => {
    const messages = [{ role: "user", content: "a" }];
    assert.equal(read({ text: "a", prompt: "b", completion: "c" }), "a");
    assert.deepEqual(read({ prompt: "b", completion: "c", id: 1 }), { prompt: "b", completion: "c" });
    assert.deepEqual(read({ messages: new Set(messages) }), messages);
    assert.equal(read({ summary: "s", text: "a" }, { textField: "summary" }), "s");
  });

  it("take rows that are ids already", () => {
    const row = { input_ids: [1, 2, 3], labels: [-100, 2, 3], attention_mask: [1, 1, 0] };
    assert.deepEqual(read(row), row);
    assert.deepEqual(read({ input_ids: Int32Array.of(4, 5), labels: null, text: "a" }), { input_ids: [4, 5] });
    assert.deepEqual(read({ a: 1 }, { format: () => ({ input_ids: [7] }) }), { input_ids: [7] });
    fails(() => read({ input_ids: "12" }), /input_ids should be a list of numbers, got "12"/);
    fails(() => read({ input_ids: [] }), /input_ids is an empty list/);
    fails(() => read({ input_ids: [1, -2] }), /input_ids\[1\] should be an id from 0, got -2/);
    fails(() => read({ input_ids: [1.5] }), /input_ids\[0\] should be an id from 0, got 1.5/);
    fails(() => read({ input_ids: [1, 2], labels: [1] }), /labels has 1 numbers, input_ids has 2/);
    fails(() => read({ input_ids: [1], labels: [-1] }), /labels\[0\] should be an id from 0, or -100, got -1/);
    fails(() => read({ input_ids: [1], attention_mask: [2] }), /attention_mask\[0\] should be 0 or 1, got 2/);
  });

  it("call the user's function, asynchronous too", async () => {
    assert.equal(read({ a: 1 }, { format: (row, i) => `${row.a} ${i}` }), "1 7");
    assert.deepEqual(read({ a: 1 }, { format: () => ({ prompt: "p", completion: "c" }) }), {
      prompt: "p",
      completion: "c",
    });
    assert.equal(await read({}, { format: async () => "later" }), "later");
    await assert.rejects(Promise.resolve(read({}, { format: async () => 3 as never })), DataError);
  });

  it("say which row and field is wrong, and what came", () => {
    fails(() => read({ text: 3 }), /"text" of row 7 should be a string, got 3/);
    fails(() => read({ text: null }), /got null/);
    fails(() => read({ a: "x", b: 1 }), /none of the fields.*It has "a", "b".*textField/);
    fails(() => read({ a: 1 }, { textField: "b" }), /no field "b". It has "a"/);
    fails(() => read({ text: "a" }, { textField: "toString" }), /no field "toString"/);
    fails(() => read({ prompt: "a", completion: 2 }), /"completion" of row 7 should be a string, got 2/);
    fails(() => read("text"), /It is "text"/);
    fails(() => read({}, { format: () => undefined as never }), /gave nothing for row 7/);
    fails(() => read({}, { format: () => ({ prompt: "a" }) as never }), /completion that is nothing/);
    fails(() => read({ messages: "hi" }), /should be a list of messages, got "hi"/);
    fails(() => read({ messages: [] }), /without messages/);
    fails(() => read({ messages: [{ role: "user" }] }), /message 0.*no content/);
    fails(
      () => read({}, { format: () => [{ content: "a" }] as never }),
      /message 0 of what format gave should be \{ role, content \}/,
    );
  });
});
