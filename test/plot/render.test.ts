import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, test } from "node:test";
import { inflateSync } from "node:zlib";
import { Resvg } from "@resvg/resvg-js";
import { displaySymbol, type MimeBundle } from "../../src/display/host.js";
import * as plot from "../../src/plot/index.js";
import { Raster } from "../../src/plot/render/canvas.js";
import { FontMetrics, loadFont, woffToTrueType } from "../../src/plot/render/font.js";
import { closeRenderer } from "../../src/plot/render/render.js";

after(closeRenderer);

test("the font: WOFF to TrueType, and its widths are those of the renderer", async () => {
  const { metrics, file } = await loadFont();
  const font = { loadSystemFonts: false, fontFiles: [file], defaultFontFamily: "DejaVu Sans" };
  for (const text of ["mmmmmmmm", "illegal", "Größe Δ≤10 Жук"]) {
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="900" height="100"><text x="0" y="50" font-family="DejaVu Sans" font-size="40">${text}</text></svg>`;
    const width = new Resvg(svg, { font }).getBBox()!.width;
    assert.ok(
      Math.abs(metrics.width(text, 40) - width) < 0.04 * width + 4,
      `${text}: ${metrics.width(text, 40)} and ${width}`,
    );
  }
  assert.ok(metrics.has(0x394) && !metrics.has(0x4f60));
  assert.ok(metrics.width("你", 10) === 10);
  assert.throws(() => woffToTrueType(Buffer.from("not a font at all")), /WOFF/);
  const woff = readFileSync(
    createRequire(import.meta.url).resolve("@fontsource/dejavu-sans/files/dejavu-sans-latin-400-normal.woff"),
  );
  assert.ok(new FontMetrics(woffToTrueType(woff)).ascent > 0.7);
});

test("legends have room for their names", async () => {
  const { metrics } = await loadFont();
  for (const names of [
    ["training", "validation", "a longer name"],
    ["one rather long name of a run", "another rather long name of a run", "a third rather long name", "short"],
  ]) {
    const rows = names.flatMap((run) => [1, 2, 3].map((step) => ({ step, loss: step, run })));
    const svg = await plot.line(rows, { x: "step", y: "loss", series: "run" }).toSvg();
    const [, legendX] = /class="legend"[^>]*transform="translate\(([\d.]+),/.exec(svg)!;
    const items = [...svg.matchAll(/class="traces"[^>]*transform="translate\(([\d.]+),([\d.]+)\)"/g)].map(
      (found, index) => {
        const left = Number(legendX) + Number(found[1]);
        // 40 pixels for the sample of the line.
        return { left, right: left + 40 + metrics.width(names[index]!, 13), top: Number(found[2]) };
      },
    );
    assert.equal(items.length, names.length);
    for (const [index, item] of items.entries()) {
      assert.ok(item.right <= 800, `${names[index]} is cut at the edge`);
      const next = items[index + 1];
      if (next) assert.ok(next.left >= item.right || next.top >= item.top + 13, `${names[index]} runs into the next`);
    }
  }
});

test("pictures are opaque and white, with something drawn", async () => {
  const png = Buffer.from(
    await plot
      .heatmap([
        [0, 1],
        [1, 0],
      ])
      .toPng({ width: 300, height: 200 }),
  );
  const { pixels, width } = decodePng(png);
  assert.deepEqual([...pixels.subarray(0, 4)], [255, 255, 255, 255]);
  const colors = new Set<number>();
  for (let i = 0; i < pixels.length; i += 4) {
    assert.equal(pixels[i + 3], 255);
    colors.add(pixels.readUInt32BE(i));
  }
  assert.equal(width, 300);
  assert.ok(colors.has(0x440154ff) && colors.has(0xfde725ff), "both ends of the colour scale");
});

test("a raster's PNG holds what was drawn", () => {
  const raster = new Raster(3, 2);
  raster.fillStyle = "rgba(10, 20, 30, 1)";
  raster.fillRect(1, 0, 5, 1);
  const { pixels } = decodePng(raster.toPng());
  assert.deepEqual([...pixels.subarray(0, 12)], [0, 0, 0, 0, 10, 20, 30, 255, 10, 20, 30, 255]);
  assert.throws(() => new Raster(1e6, 1e6), RangeError);
});

test("sizes have bounds; a picture that cannot be drawn is an error, and the bundle goes on without", async () => {
  const shown = plot.line([1, 2]);
  await assert.rejects(shown.toPng({ width: 100_000 }), RangeError);
  await assert.rejects(shown.toPng({ width: 5000, scale: 4 }), RangeError);
  await assert.rejects(shown.toPng({ width: Number.NaN }), RangeError);
  shown.figure.layout.height = 1e9;
  const said: unknown[] = [];
  const warn = console.warn;
  console.warn = (text: unknown) => said.push(text);
  try {
    for (let i = 0; i < 2; i++) {
      const bundle = await (shown as unknown as Record<symbol, () => Promise<MimeBundle>>)[displaySymbol]!();
      assert.deepEqual(Object.keys(bundle).sort(), ["application/vnd.plotly.v1+json", "text/plain"]);
    }
  } finally {
    console.warn = warn;
  }
  assert.equal(said.length, 1);
});

test("several at once, and again after the renderer was closed", async () => {
  const pictures = await Promise.all([1, 2, 3].map((n) => plot.line([n, 2 * n]).toPng({ width: 200, height: 120 })));
  assert.equal(pictures.length, 3);
  const pending = assert.rejects(plot.line([1, 2]).toPng(), /closed/);
  await closeRenderer();
  await pending;
  assert.ok((await plot.line([1, 2]).toPng({ width: 200, height: 120 })).length > 500);
});

test("a process ends by itself after a picture, and waits for one that is being drawn", () => {
  const script = `
    import { line } from ${JSON.stringify(new URL("../../src/plot/index.js", import.meta.url).href)};
    line([1, 2]).toPng({ width: 100, height: 80 }).then((png) => console.log(png.length > 100));`;
  const start = performance.now();
  const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 50_000,
  });
  assert.deepEqual([stdout, status], ["true\n", 0]);
  assert.ok(performance.now() - start < 40_000);
});

function decodePng(png: Buffer): { width: number; pixels: Buffer } {
  const width = png.readUInt32BE(16);
  const height = png.readUInt32BE(20);
  const parts: Buffer[] = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    if (png.toString("latin1", at + 4, at + 8) === "IDAT")
      parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  assert.deepEqual([...png.subarray(24, 26)], [8, 6]);
  const lines = inflateSync(Buffer.concat(parts));
  const stride = width * 4;
  const pixels = Buffer.alloc(stride * height);
  for (let row = 0; row < height; row++) {
    const filter = lines[row * (stride + 1)]!;
    for (let i = 0; i < stride; i++) {
      const raw = lines[row * (stride + 1) + 1 + i]!;
      const left = i >= 4 ? pixels[row * stride + i - 4]! : 0;
      const up = row > 0 ? pixels[(row - 1) * stride + i]! : 0;
      const corner = row > 0 && i >= 4 ? pixels[(row - 1) * stride + i - 4]! : 0;
      const estimate = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter]!;
      pixels[row * stride + i] = raw + estimate;
    }
  }
  return { width, pixels };
}

function paeth(a: number, b: number, c: number): number {
  const p = a + b - c;
  const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
