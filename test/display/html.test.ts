import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { el, escapeHtml, type Style, type Tag } from "../../src/display/html.js";

test("text and attribute values are escaped", () => {
  const node = el("td", { title: `"><script>alert(1)</script>` }, `<img src=x onerror='a'>&amp;`);
  assert.equal(
    node.toString(),
    '<td title="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;">&lt;img src=x onerror=&#39;a&#39;&gt;&amp;amp;</td>',
  );
});

test("control characters and lone surrogates cannot come through", () => {
  assert.equal(escapeHtml("a\0b\ud800c\u001b[31m"), "a\ufffdb\ufffdc\ufffd[31m");
  assert.equal(escapeHtml("😀 é\n\t"), "😀 é\n\t");
});

test("objects that look like nodes are text", () => {
  const fake = { toString: () => "<b>x</b>" };
  assert.equal(el("p", {}, fake as never).toString(), "<p>&lt;b&gt;x&lt;/b&gt;</p>");
  assert.equal(el("p", {}, el("b", {}, "x"), 1, null, undefined).toString(), "<p><b>x</b>1</p>");
});

test("only http and https links, only images in the page itself", () => {
  assert.equal(
    el("a", { href: "https://example.org/?a=1&b=2" }, "x").toString(),
    '<a href="https://example.org/?a=1&amp;b=2">x</a>',
  );
  for (const href of [
    "javascript:alert(1)",
    " javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "//x",
    "x",
  ]) {
    assert.equal(el("a", { href }, "x").toString(), "<a>x</a>", href);
  }
  assert.equal(el("img", { src: "https://example.org/track.png" }).toString(), "<img>");
  assert.equal(el("img", { src: "data:image/svg+xml;base64,AAAA" }).toString(), "<img>");
  assert.equal(el("img", { src: "data:image/png;base64,AAAA" }).toString(), '<img src="data:image/png;base64,AAAA">');
});

test("tags, attributes and styles outside the lists are refused", () => {
  assert.throws(() => el("script" as Tag, {}, "x"), /tag/);
  assert.throws(() => el("p", { onclick: "x" } as never), /attribute/);
  assert.throws(() => el("p", { id: "x" } as never), /attribute/);
  assert.throws(() => el("p", { style: { width: "1px;background:red" } as Style }), /style/);
  assert.throws(() => el("p", { style: { background: "url(https://example.org)" } }), /style/);
  assert.throws(() => el("p", { style: { position: "fixed" } as Style }), /style/);
  assert.throws(() => el("p", { style: { __proto__: null, constructor: "1" } as Style }), /style/);
  assert.equal(el("p", { style: { maxWidth: "36em" } }).toString(), '<p style="max-width:36em"></p>');
});

test("no HTML is written by hand in the library", () => {
  const root = join(import.meta.dirname, "../../../src");
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  assert.ok(files.length > 20);
  for (const file of files) {
    if (file === join("display", "html.ts")) continue;
    for (const [index, line] of readFileSync(join(root, file), "utf8").split("\n").entries()) {
      const place = `${file}:${index + 1}: ${line.trim()}`;
      if (line.includes('"text/html":')) assert.match(line, /toString\(\)|toHtml\(\)/, place);
      // Charts have line breaks and hover texts in plotly's own small language.
      if (file.startsWith("plot")) continue;
      assert.doesNotMatch(
        line.replace(/^\s*(\*|\/[/*]).*/, ""),
        /["'`]<(div|span|p|b|i|a|img|table|tr|td|th|br|script|style|svg)\b/,
        place,
      );
    }
  }
});
