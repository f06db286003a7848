import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { displaySymbol, table } from "../../src/display/index.js";

const html = (shown: ReturnType<typeof table>): string => shown.toHtml().toString();

test("text: aligned columns, numbers to the right, null said", () => {
  const shown = table(
    ["name", "loss", "n"],
    [
      ["a", 2.34567, 12460],
      ["你好", null, 3],
      ["c", 0.5, undefined],
    ],
    { title: "Runs" },
  );
  assert.equal(
    shown.toText(),
    [
      "Runs",
      "name   loss       n",
      "────  ─────  ──────",
      "a     2.346  12,460",
      "你好   null       3",
      "c     0.500    null",
    ].join("\n"),
  );
  assert.equal(inspect(shown), shown.toText());
});

test("rows as records, in any order of keys; inherited names are no data", () => {
  const shown = table(["b", "constructor"], [{ a: 1, b: 2 }]);
  assert.deepEqual(shown.rows, [[2, undefined]]);
});

test("rows and columns left out are counted", () => {
  const rows = Array.from({ length: 40 }, (_, i) => [i, i, i]);
  const shown = table(["a", "b", "c"], rows, { maxRows: 2, maxColumns: 1, totalRows: 12460 });
  assert.match(shown.toText(), /… 12,458 more rows, 2 more columns$/);
  assert.match(html(shown), /… 12,458 more rows, 2 more columns/);
  assert.match(table(["a"], [[1], [2]], { maxRows: 1 }).toText(), /… 1 more row$/);
});

test("html: everything from data is escaped, long cells are cut with a tooltip", () => {
  const long = "<i>".repeat(200);
  const page = html(table(["<b>", '"'], [["<script>", long]], { title: "<t>" }));
  assert.doesNotMatch(page, /<(script|i|b|t)>/);
  assert.match(page, /&lt;script&gt;/);
  assert.match(page, /title="&lt;i&gt;/);
  assert.match(page, /…<\/td>/);
});

test("line ends become breaks in html, signs in text; control characters are shown", () => {
  const shown = table(["a"], [["x\ny\u001b[2J"]]);
  assert.match(html(shown), /x<br>y␛\[2J/);
  assert.match(shown.toText(), /x⏎y␛\[2J/);
});

test("values of data", () => {
  const shown = table(["v"], [[{ a: [1, 2n] }], [true], [new Date(0)], [new Uint8Array(3)], [10n ** 20n], [["x"]]], {
    maxTextCell: 60,
  });
  assert.deepEqual(shown.toText().split("\n").slice(2), [
    '{"a":[1,"2"]}',
    "true",
    "1970-01-01T00:00:00.000Z",
    "<3 bytes>",
    "100,000,000,000,000,000,000",
    '["x"]',
  ]);
});

test("formats and alignments of one's own", () => {
  const shown = table(["share"], [[0.5]], {
    format: { share: (value) => `${Number(value) * 100}%` },
    align: { share: "center" },
  });
  assert.match(shown.toText(), /50%/);
  assert.match(html(shown), /text-align:center/);
});

test("its bundle has html and text; an empty table is fine", () => {
  const bundle = (table([], []) as unknown as Record<symbol, () => object>)[displaySymbol]!();
  assert.deepEqual(Object.keys(bundle), ["text/html", "text/plain"]);
});

test("a table that allows long text shows it in html as well, unless that has a limit of its own", () => {
  const long = "x".repeat(300);
  assert.ok(html(table(["a"], [[long]], { maxTextCell: 400 })).includes(`>${long}<`));
  assert.ok(!html(table(["a"], [[long]], { maxTextCell: 40 })).includes(`>${long}<`));
  assert.ok(!html(table(["a"], [[long]], { maxTextCell: 400, maxCell: 50 })).includes(`>${long}<`));
});

test("images are shown in their cells, up to a number of bytes, and named in text", () => {
  const png = Buffer.from("89504e470d0a1a0a0000", "hex");
  const shown = table(
    ["image", "path"],
    [
      [png, { bytes: png, path: "<b>.png" }],
      [new Uint8Array([1, 2]), null],
    ],
  );
  const html = shown.toHtml().toString();
  assert.equal(html.match(/<img src="data:image\/png;base64,iVBORw0KGgoAAA==" alt="\[PNG image, 10 B\]"/g)?.length, 2);
  assert.match(html, /max-height:120px/);
  assert.ok(!html.includes("b>.png"));
  assert.match(html, /&lt;2 bytes&gt;/);
  assert.match(shown.toText(), /\[PNG image, 10 B\] {2}\[PNG image, 10 B\]/);
  const large = Buffer.concat([png, Buffer.alloc(3_000_000)]);
  const two = table(["image"], [[large], [large]])
    .toHtml()
    .toString();
  assert.equal(two.match(/<img/g)?.length, 1);
  assert.ok(/>\[PNG image, 2\.86 MiB\]<\/td>/.test(two), two.slice(-200)); // the other is too long to print
  // Only bytes of images are: no text of data becomes an address.
  assert.ok(
    !table(["a"], [["data:image/png;base64,AAAA"]])
      .toHtml()
      .toString()
      .includes("<img"),
  );
});
