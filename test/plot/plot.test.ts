import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { inspect } from "node:util";
import { tableFromArrays } from "apache-arrow";
import { Dataset } from "../../src/data/dataset.js";
import { displaySymbol, type MimeBundle } from "../../src/display/host.js";
import { DataError } from "../../src/errors.js";
import * as plot from "../../src/plot/index.js";

const folder = mkdtempSync(join(tmpdir(), "plot-"));
after(() => rmSync(folder, { recursive: true, force: true }));

type Trace = {
  x: unknown[];
  y: unknown[];
  z: unknown[][];
  text: unknown[];
  name: string;
  mode: string;
  orientation: string;
};
const traces = (shown: plot.Plot): Trace[] => shown.figure.data as unknown as Trace[];
const points = (shown: plot.Plot): unknown[][] => traces(shown).map((trace) => [trace.x, trace.y]);

test("lines from every form of data", () => {
  const expected = [
    [
      [1, 2],
      [3, 4],
    ],
  ];
  const records = [
    { step: 1, loss: 3 },
    { step: 2, loss: 4 },
  ];
  const options = { x: "step", y: "loss" };
  assert.deepEqual(points(plot.line(records, options)), expected);
  assert.deepEqual(points(plot.line(Dataset.from(records), options)), expected);
  assert.deepEqual(points(plot.line({ step: [1, 2], loss: Float32Array.of(3, 4) }, options)), expected);
  const arrow = tableFromArrays({ step: BigInt64Array.of(1n, 2n), loss: Float64Array.of(3, 4) });
  assert.deepEqual(points(plot.line(arrow, options)), expected);
  assert.deepEqual(
    points(
      plot.line([
        [1, 3],
        [2, 4],
      ]),
    ),
    expected,
  );
  assert.deepEqual(points(plot.line([3, 4])), [
    [
      [0, 1],
      [3, 4],
    ],
  ]);
  assert.deepEqual(points(plot.line(records)), expected);
});

test("series, several columns, gaps", () => {
  const rows = [
    { s: 0, a: 1, b: Number.NaN, run: "x" },
    { s: 1, a: 2, b: 5, run: "y" },
  ];
  assert.deepEqual(points(plot.line(rows, { x: "s", y: ["a", "b"] })), [
    [
      [0, 1],
      [1, 2],
    ],
    [
      [0, 1],
      [null, 5],
    ],
  ]);
  const byRun = plot.line(rows, { x: "s", y: "a", series: "run" });
  assert.deepEqual(
    traces(byRun).map((trace) => trace.name),
    ["x", "y"],
  );
  assert.equal((byRun.figure.layout as { showlegend: boolean }).showlegend, true);
  assert.equal((plot.line(rows, { x: "s", y: "a" }).figure.layout as { showlegend: boolean }).showlegend, false);
});

test("a long line keeps its extremes and becomes short", () => {
  const values = Array.from({ length: 100_000 }, (_, i) => Math.sin(i / 1000));
  values[33_333] = 9;
  const [trace] = traces(plot.line(values));
  assert.ok(trace!.x.length <= 4002);
  assert.equal(trace!.y[trace!.x.indexOf(33_333)], 9);
  assert.equal(trace!.mode, "lines");
});

test("bars: categories, values on them, long names to the side", () => {
  const rows = [
    { metric: "perplexity", before: 12, after: 5 },
    { metric: "loss", before: 2.5, after: 1.6 },
  ];
  const shown = plot.bar(rows);
  assert.deepEqual(
    traces(shown).map((trace) => trace.name),
    ["before", "after"],
  );
  assert.deepEqual(traces(shown)[0]?.text, ["12.0", "2.5"]);
  const long = Array.from({ length: 5 }, (_, i) => ({ topic: `a rather long name of a topic ${i}`, count: i }));
  assert.equal(traces(plot.bar(long))[0]?.orientation, "h");
  assert.equal(traces(plot.bar(long, { horizontal: false }))[0]?.orientation, "v");
  assert.equal(plot.bar(rows, { stacked: true }).figure.layout.barmode, "stack");
});

test("histograms: round bins that hold every value", () => {
  const values = Array.from({ length: 1000 }, (_, i) => (i * 37) % 100);
  const [trace] = traces(plot.histogram(values, { bins: 10 }));
  assert.deepEqual(trace?.y, new Array(10).fill(100));
  assert.deepEqual(trace?.x, [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]);
  assert.deepEqual(traces(plot.histogram([3, 3, 3]))[0]?.y, [3]);
  const sum = traces(plot.histogram([0.1, 0.2, 0.3, 0.7, 1e-9, 0.30000000000000004]))[0]!.y.reduce<number>(
    (a, b) => a + Number(b),
    0,
  );
  assert.equal(sum, 6);
  assert.deepEqual(traces(plot.histogram([{ t: "b" }, { t: "a" }, { t: "b" }]))[0]?.x, ["b", "a"]);
});

test("scatter: colours by name or by number, many points thinned and said so", () => {
  const rows = Array.from({ length: 50_000 }, (_, i) => ({ a: i, b: -i, kind: i % 2 ? "odd" : "even" }));
  const shown = plot.scatter(rows, { color: "kind" });
  assert.match(JSON.stringify(shown.figure.layout.title), /every 3th of 50,000 points|every 3rd of 50,000 points/);
  assert.ok(JSON.stringify(shown.figure).length < 1_000_000);
  const [trace] = plot.scatter(rows.slice(0, 10), { x: "a", y: "b", color: "a" }).figure.data;
  assert.equal((trace as { marker: { showscale: boolean } }).marker.showscale, true);
});

test("heat maps from matrices and from rows", () => {
  assert.deepEqual(
    traces(
      plot.heatmap([
        [1, 2],
        [3, Number.NaN],
      ]),
    )[0]?.z,
    [
      [1, 2],
      [3, null],
    ],
  );
  const rows = [
    { rank: 8, lr: 0.1, loss: 1 },
    { rank: 16, lr: 0.2, loss: 2 },
  ];
  const [trace] = traces(plot.heatmap(rows, { x: "rank", y: "lr", z: "loss" }));
  assert.deepEqual(
    [trace?.x, trace?.y, trace?.z],
    [
      ["8", "16"],
      ["0.1", "0.2"],
      [
        [1, null],
        [null, 2],
      ],
    ],
  );
  assert.throws(() => plot.heatmap([[1]], { xNames: ["a", "b"] }), DataError);
});

test("confusion matrices from counts and from rows", () => {
  const counts = plot.confusion({
    labels: ["ham", "spam"],
    matrix: [
      [98, 2],
      [1, 9],
    ],
  });
  assert.deepEqual(traces(counts)[0]?.text, [
    ["98<br>98.0%", "2<br>2.0%"],
    ["1<br>10.0%", "9<br>90.0%"],
  ]);
  assert.match(counts.toText(), /ham +98 +2 +98\.0%\nspam +1 +9 +90\.0%/);
  const rows = [
    { actual: "a", predicted: "a" },
    { actual: "b", predicted: "a" },
  ];
  assert.deepEqual(traces(plot.confusion(rows))[0]?.z, [
    [1, 0],
    [1, 0],
  ]);
  assert.throws(() => plot.confusion({ labels: ["a"], matrix: [[1, 2]] }), DataError);
  assert.throws(
    () =>
      plot.confusion({
        labels: ["a", "a"],
        matrix: [
          [1, 2],
          [1, 2],
        ],
      }),
    /twice/,
  );
  assert.throws(() => plot.confusion(rows, { labels: ["a"] }), /not in labels/);
  assert.throws(() => plot.confusion([]), DataError);
});

test("wrong columns and data say what there is", () => {
  assert.throws(() => plot.line([{ a: 1 }], { x: "a", y: "los" }), /no column "los"; there are a/);
  assert.throws(() => plot.line([{ a: 1, b: "x" }], { x: "a", y: "b" }), /column b holds no finite numbers/);
  assert.throws(() => plot.bar(null as never), DataError);
  assert.throws(() => plot.line({ a: 5 } as never), DataError);
  assert.throws(() => plot.line({ a: [1], b: [1, 2] }), /different lengths/);
});

test("names from data are no markup, links or formulas", () => {
  const rows = [
    { x: "<b>bold</b>", y: 1, s: '<a href="javascript:alert(1)">$x$</a>' },
    { x: "&lt;", y: 2, s: "b" },
  ];
  const { layout, data } = plot.bar(rows, { x: "x", y: "y", series: "s", title: "<i>t</i>" }).figure;
  const shownText = JSON.stringify([
    layout.title,
    (layout.xaxis as { ticktext: string[] }).ticktext,
    data.map((trace) => trace.name),
  ]);
  assert.doesNotMatch(shownText, /<|\$/);
  assert.match(shownText, /&lt;b&gt;bold/);
});

test("the figure is plain JSON", () => {
  const shown = plot.line(
    [
      { t: new Date(0), v: 1n },
      { t: new Date(1000), v: Number.POSITIVE_INFINITY },
    ],
    { x: "t", y: "v" },
  );
  assert.deepEqual(JSON.parse(JSON.stringify(shown.figure)), shown.figure);
  assert.deepEqual(points(shown), [
    [
      ["1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.000Z"],
      [1, null],
    ],
  ]);
});

test("text on terminals", () => {
  assert.match(inspect(plot.line([3, 2, 1], { title: "Loss" })), /^Loss\n█▅▁ {2}3 → 1 \(least 1, most 3\)$/);
  assert.match(
    plot
      .bar([
        { a: "x", n: 2 },
        { a: "y", n: 1 },
      ])
      .toText(),
    /x {2}2 {2}█{40}\ny {2}1 {2}█{20}$/,
  );
  // Bars of several series have one scale, as on the axis.
  assert.match(
    plot.bar([{ a: "x", before: 1, after: 4 }]).toText(),
    /before\nx {2}1 {2}█{10}\nafter\nx {2}4 {2}█{40}$/,
  );
  assert.equal(plot.line([], { title: "Nothing" }).toText(), "Nothing");
});

test("the bundle: plotly as an object, PNG in base64, text", async () => {
  const shown = plot.line(
    [
      { step: 1, loss: 2 },
      { step: 2, loss: 1 },
    ],
    { title: "Loss" },
  );
  const bundle = (await (shown as unknown as Record<symbol, () => Promise<MimeBundle>>)[displaySymbol]!()) as Record<
    string,
    string
  >;
  assert.deepEqual(Object.keys(bundle).sort(), ["application/vnd.plotly.v1+json", "image/png", "text/plain"]);
  assert.equal(typeof bundle["application/vnd.plotly.v1+json"], "object");
  const png = Buffer.from(bundle["image/png"]!, "base64");
  assert.equal(png.toString("latin1", 1, 4), "PNG");
  assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [800, 420]);
});

test("pictures and figures in files", async () => {
  const shown = plot.bar([{ a: "x", n: 2 }]);
  for (const ending of ["png", "svg", "json"])
    await shown.save(join(folder, "new", `chart.${ending}`), { width: 300, height: 200, scale: 2 });
  const png = readFileSync(join(folder, "new", "chart.png"));
  assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [600, 400]);
  assert.match(readFileSync(join(folder, "new", "chart.svg"), "utf8"), /^<svg/);
  assert.deepEqual(JSON.parse(readFileSync(join(folder, "new", "chart.json"), "utf8")), shown.figure);
  await assert.rejects(shown.save(join(folder, "new", "chart.pdf")), /\.png, \.svg or \.json/);
  assert.equal(readdirSync(join(folder, "new")).length, 3);
});
