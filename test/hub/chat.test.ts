import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TokenizerError } from "../../src/errors.js";
import { ChatTemplate, checkMessages, strftime } from "../../src/hub/chat.js";

const render = (source: string, variables: Record<string, unknown> = {}, limits = {}) =>
  new ChatTemplate(source, limits).render(variables);
const fails = (run: () => unknown, message: RegExp) =>
  assert.throws(run, (error: Error) => error instanceof TokenizerError && message.test(error.message));

describe("chat templates", () => {
  it("trim blocks as transformers does", () => {
    assert.equal(render("{% if true %}\n  a\n  {% endif %}\nb\n"), "  a\nb");
    assert.equal(render("{%- for x in [1, 2] %}\n    {{- x }}\n{%- endfor %}"), "12");
    assert.equal(
      render("{% set n = namespace(v=0) %}{% for x in range(3) %}{% set n.v = n.v + x %}{% endfor %}{{ n.v }}"),
      "3",
    );
    assert.equal(render("{% generation %}a{% endgeneration %}{{ missing }}"), "a");
    assert.equal(render("{{ range(3) | list }} {{ range(1, 7, 3)[1] }}"), "[0, 1, 2] 4");
  });

  it("pass on what a template refuses, in its words", () => {
    fails(
      () => render("{{ raise_exception('roles must alternate') }}"),
      /refuses these messages: roles must alternate/,
    );
    fails(() => render("{% if %}"), /cannot be read/);
    fails(() => render("{{ 'a' + }}"), /cannot be read/);
    fails(() => render("{{ messages[0]['role'] }}"), /failed/);
    fails(() => new ChatTemplate("x".repeat(1_000_001)), /1000001 characters/);
  });

  it("are stopped when they take too much", () => {
    const endless =
      "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    fails(() => render(endless, {}, { steps: 10_000 }), /more than 10000 steps/);
    fails(() => render(endless, {}, { seconds: 0.05, steps: 1e12 }), /more than 0.05 s/);
    const doubling =
      "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}";
    fails(() => render(doubling), /more than 8000000 characters/);
    fails(() => render("{{ range(100001) }}"), /at most 100000/);
    fails(() => render("{{ range(10 ** 300) }}"), /at most 100000/);
    fails(() => render("{{ range(1, 5, 0) }}"), /step/);
    fails(() => render("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"), /failed|steps/);
  });

  it("see plain data and nothing behind it", () => {
    for (const name of ["constructor", "__proto__", "toString", "__class__"]) {
      assert.equal(
        render(`{{ m.${name} is defined }} {{ m['${name}'] is defined }} {{ ${name} is defined }}`, { m: { a: 1 } }),
        "false false false",
      );
    }
    let ran = false;
    const run = () => {
      ran = true;
    };
    fails(() => render("{{ m.run() }}", { m: { run } }), /failed/);
    assert.equal(ran, false);
    assert.equal(render("{{ m.polluted is defined }}", { m: JSON.parse('{"__proto__":{"polluted":1}}') }), "false");
    let deep: unknown = "x";
    for (let i = 0; i < 40; i++) deep = [deep];
    fails(() => render("{{ m }}", { m: deep }), /nested deeper/);
  });

  it("know the date in Python's words", () => {
    const date = new Date(2024, 6, 4, 15, 7, 9);
    assert.equal(
      strftime(date, "%d %b %Y, %B %e %A %a %y-%m %H:%M:%S %I%p %% %Q"),
      "04 Jul 2024, July  4 Thursday Thu 24-07 15:07:09 03PM % %Q",
    );
    assert.equal(render("{{ strftime_now('%Y') }}"), String(new Date().getFullYear()));
  });
});

describe("messages", () => {
  it("are checked, with the one that is wrong", () => {
    checkMessages([{ role: "user", content: "a" }]);
    fails(() => checkMessages("hello"), /Expected a list of messages.*got "hello"/);
    fails(() => checkMessages([{ role: "user", content: "" }, { content: "a" }]), /Message 1/);
    fails(() => checkMessages([null]), /Message 0.*null/);
  });
});
