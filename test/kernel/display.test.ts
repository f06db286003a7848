import assert from "node:assert/strict";
import { symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { execute, of, printed, sequence, startKernel, type TestKernel } from "./support.js";

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const bytes = `Buffer.from(${JSON.stringify(png)}, "base64")`;

describe("displays", () => {
  let kernel: TestKernel;
  before(async () => {
    kernel = await startKernel();
    symlinkSync(
      join(dirname(createRequire(import.meta.url).resolve("apache-arrow")), ".."),
      join(kernel.folder, "node_modules"),
    );
  });
  after(() => kernel.stop());

  type Data = Record<string, string>;
  /** The bundles that a cell shows, displays and result. */
  async function bundles(code: string): Promise<Data[]> {
    const answer = await execute(kernel.client, code);
    assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
    return answer.iopub
      .filter(({ header }) => /^(?:display_data|execute_result)$/.test(header.msg_type))
      .map(({ content }) => content.data as Data);
  }
  const refused = async (code: string): Promise<string> =>
    String((await execute(kernel.client, code)).reply.content.evalue);

  it("have helpers for what text is", async () => {
    const code =
      "display.html('<b>x</b>'); display.markdown('*x*'); display.latex('$x$'); display.svg('<svg/>'); display.json({ a: [1n, undefined] }); display.raw({ 'text/x': 'y' });";
    assert.deepEqual(await bundles(code), [
      { "text/html": "<b>x</b>", "text/plain": "[HTML]" },
      { "text/markdown": "*x*", "text/plain": "*x*" },
      { "text/latex": "$x$", "text/plain": "$x$" },
      { "image/svg+xml": "<svg/>", "text/plain": "[SVG]" },
      { "application/json": { a: ["1", null] }, "text/plain": '{\n  "a": [\n    "1",\n    null\n  ]\n}' },
      { "text/x": "y", "text/plain": "[Bundle]" },
    ]);
    const [plotly, vega] = await bundles("display.plotly({ data: [{ y: [1, 2] }] }); display.vega({ mark: 'bar' });");
    assert.deepEqual(plotly!["application/vnd.plotly.v1+json"], { data: [{ y: [1, 2] }] });
    assert.deepEqual(vega!["application/vnd.vegalite.v5+json"], { mark: "bar" });
    assert.match(await refused("display.html(5 as any)"), /display\.html takes text, got a number/);
    assert.match(await refused("display.plotly('x' as any)"), /display\.plotly takes an object, got a string/);
  });

  it("show pictures by their first bytes", async () => {
    const shown = { "image/png": png, "text/plain": "[PNG image, 70 bytes]" };
    assert.deepEqual(
      await bundles(
        `display.image(${bytes}); display.image("data:image/png;base64,${png}"); display(${bytes}); ${bytes}`,
      ),
      [shown, shown, shown, shown],
    );
    assert.deepEqual(await bundles(`display.image(new Uint8Array(${bytes}).buffer);`), [shown]);
    const [jpeg, gif, webp] = await bundles(
      "for (const head of [[255, 216, 255, 224], [71, 73, 70, 56, 57], [...Buffer.from('RIFF1234WEBPVP8 ')]]) display(Uint8Array.from(head));",
    );
    assert.ok(jpeg!["image/jpeg"] && gif!["image/gif"] && webp!["text/html"]!.startsWith("<img "));
    const svg = '\'\\n<?xml version="1.0"?><!-- a - b --><svg width="1"></svg>\'';
    for (const [one] of [await bundles(`display.image(${svg})`), await bundles(`display.image(Buffer.from(${svg}))`)])
      assert.match(one!["image/svg+xml"]!, /<svg width/);
    assert.deepEqual(await bundles("Uint8Array.of(1, 2)"), [{ "text/plain": "Uint8Array(2) [ 1, 2 ]" }]);
    assert.match(
      await refused("display.image('no picture')"),
      /takes the bytes of a PNG, JPEG, GIF, WebP or SVG file.*got "no picture".*readFile/,
    );
    assert.match(await refused("display.image(Uint8Array.of(1, 2))"), /got Uint8Array of another kind/);
  });

  it("make tables of Arrow's tables and of rows, every value escaped", async () => {
    const code = `
      import { tableFromArrays, vectorFromArray, Table, Utf8 } from "apache-arrow";
      const arrow = tableFromArrays({ n: Int32Array.from({ length: 40 }, (_, i) => i), text: Array.from({ length: 40 }, (_, i) => i === 1 ? null : "<script>" + i + "</script>") });
      arrow`;
    const [{ "text/html": html = "", "text/plain": text = "" } = {}] = await bundles(code);
    assert.ok(html.includes("&lt;script&gt;0&lt;/script&gt;") && !html.includes("<script>"), html);
    assert.match(html, /<th[^>]*>n: Int32<\/th>/);
    assert.match(html, /… 10 more rows/);
    assert.match(text, /^n: Int32 +text: .*\n─+ +─+\n +0 +<script>0<\/script>\n +1 +null\n/);
    assert.equal(text.split("\n").length, 2 + 30 + 1);
    const [rows] = await bundles(
      "display.table([{ a: 1, b: '<i>' }, { a: 20, c: new Date(0) }, [5], 'x'], { maxRows: 2 });",
    );
    assert.equal(
      rows!["text/plain"],
      " a  b     c\n──  ────  ────────────────────────\n 1  <i>   null\n20  null  1970-01-01T00:00:00.000Z\n… 2 more rows",
    );
    assert.ok(rows!["text/html"]!.includes("&lt;i&gt;") && !rows!["text/html"]!.includes("<i>"));
    assert.match(
      await refused("display.table(5 as any)"),
      /takes an array \(or anything iterable\) of rows, got a number/,
    );
  });

  it("can be replaced and cleared", async () => {
    const answer = await execute(
      kernel.client,
      "const bar = display('0 %', { id: true }); bar.update('50 %'); display.clear({ wait: true }); display('x', { id: 'mine' })?.update(display);",
    );
    assert.deepEqual(sequence(answer), [
      "busy",
      "execute_input",
      "display_data",
      "update_display_data",
      "clear_output",
      "display_data",
      "update_display_data",
      "idle",
    ]);
    const [first] = of(answer, "display_data");
    const [update] = of(answer, "update_display_data");
    assert.deepEqual(update!.content.transient, first!.content.transient);
    assert.match(String((first!.content.transient as Data).display_id), /^tunebook-/);
    assert.deepEqual(of(answer, "clear_output")[0]!.content, { wait: true });
    assert.equal(
      of(await execute(kernel.client, "display('y', { id: 'mine', update: true })"), "execute_result").length,
      0,
    );
    // From another cell the first cell's display changes, under its own id.
    const later = await execute(kernel.client, "bar.update('100 %');");
    assert.deepEqual(of(later, "update_display_data")[0]!.content.transient, first!.content.transient);
    assert.equal(printed(later, "stderr"), "");
  });
});
