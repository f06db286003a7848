/** A window without a browser that plotly can draw SVG in: sizes of text come from the font's own metrics. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { JSDOM, VirtualConsole } from "jsdom";
import { Raster } from "./canvas.js";
import type { FontMetrics } from "./font.js";

/** The part of plotly that is used here. */
export interface Plotly {
  toImage(figure: object, options: { format: "svg"; width: number; height: number }): Promise<string>;
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

const lineHeight = 1.3;

/** Loads plotly into a fresh window (about a second). */
export async function openPlotly(metrics: FontMetrics): Promise<Plotly> {
  const require = createRequire(import.meta.url);
  const code = await readFile(require.resolve("plotly.js-dist-min"), "utf8");
  // Without a console of its own, jsdom's notes on missing features would go to the terminal.
  const { window } = new JSDOM("<!doctype html><body></body>", {
    runScripts: "outside-only",
    pretendToBeVisual: true,
    virtualConsole: new VirtualConsole(),
  });
  const view = window as unknown as Record<string, unknown> & typeof window;
  Object.assign(view, { TextDecoder, TextEncoder });
  Object.assign(view.URL, { createObjectURL: () => "blob:none", revokeObjectURL: () => undefined });
  measure(view, metrics);
  giveCanvas(view);
  view.eval(code);
  return view.Plotly as Plotly;
}

function measure(view: JSDOM["window"], metrics: FontMetrics): void {
  const sizes = { boxOf: (element: Element): Box => boxOf(element, metrics) };
  Object.assign(view.SVGElement.prototype, {
    getBBox(this: Element): Box {
      return sizes.boxOf(this);
    },
    getComputedTextLength(this: Element): number {
      return textWidth(this, fontSize(this), metrics);
    },
    getBoundingClientRect(this: Element): object {
      const { x, y, width, height } = sizes.boxOf(this);
      return { x, y, width, height, left: x, top: y, right: x + width, bottom: y + height };
    },
  });
}

function boxOf(element: Element, metrics: FontMetrics): Box {
  const name = element.localName;
  if (name === "text" || name === "tspan") return textBox(element, metrics);
  if (name === "rect" || name === "image" || name === "svg") {
    const [x, y, width, height] = ["x", "y", "width", "height"].map((key) => number(element, key));
    return { x: x!, y: y!, width: width!, height: height! };
  }
  const boxes = Array.from(element.children, (child) => moved(boxOf(child, metrics), child)).filter(
    (box) => box.width > 0 || box.height > 0,
  );
  if (boxes.length === 0) return { x: 0, y: 0, width: 0, height: 0 };
  const x = Math.min(...boxes.map((box) => box.x));
  const y = Math.min(...boxes.map((box) => box.y));
  const right = Math.max(...boxes.map((box) => box.x + box.width));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height));
  return { x, y, width: right - x, height: bottom - y };
}

/** A box as its element's own transform moves it: translate, scale, and rotate with or without a centre. */
function moved(box: Box, element: Element): Box {
  const steps = [...(element.getAttribute("transform") ?? "").matchAll(/(\w+)\(([^)]*)\)/g)];
  if (steps.length === 0) return box;
  let corners: [number, number][] = [
    [box.x, box.y],
    [box.x + box.width, box.y],
    [box.x, box.y + box.height],
    [box.x + box.width, box.y + box.height],
  ];
  for (const [, name, list = ""] of steps.reverse()) {
    const [a = 0, b, c] = list.split(/[\s,]+/).map(Number);
    if (name === "translate") corners = corners.map(([x, y]) => [x + a, y + (b ?? 0)]);
    else if (name === "scale") corners = corners.map(([x, y]) => [x * a, y * (b ?? a)]);
    else if (name === "rotate") corners = corners.map((corner) => rotated(corner, a, b ?? 0, c ?? 0));
  }
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
}

function rotated([x, y]: [number, number], degrees: number, aroundX: number, aroundY: number): [number, number] {
  const angle = (degrees * Math.PI) / 180;
  const [dx, dy] = [x - aroundX, y - aroundY];
  return [aroundX + dx * Math.cos(angle) - dy * Math.sin(angle), aroundY + dx * Math.sin(angle) + dy * Math.cos(angle)];
}

function number(element: Element, attribute: string): number {
  return Number.parseFloat(element.getAttribute(attribute) ?? "0") || 0;
}

function textBox(text: Element, metrics: FontMetrics): Box {
  const size = fontSize(text);
  const lines = Array.from(text.querySelectorAll("tspan.line"));
  const parts = lines.length > 0 ? lines : [text];
  const width = Math.max(...parts.map((line) => textWidth(line, size, metrics)));
  const height = (metrics.ascent + metrics.descent + (parts.length - 1) * lineHeight) * size;
  const anchor = styleOf(text, "textAnchor", "text-anchor");
  const shift = anchor === "middle" ? width / 2 : anchor === "end" ? width : 0;
  return { x: number(text, "x") - shift, y: number(text, "y") - metrics.ascent * size, width, height };
}

function textWidth(element: Element, size: number, metrics: FontMetrics): number {
  let width = 0;
  for (const node of Array.from(element.childNodes)) {
    if (node.nodeType === 3) width += metrics.width(node.textContent ?? "", size);
    else if (node.nodeType === 1) width += textWidth(node as Element, ownSize(node as Element, size), metrics);
  }
  return width;
}

function styleOf(element: Element, property: "textAnchor" | "fontSize", attribute: string): string {
  return (element as SVGElement).style?.[property] || element.getAttribute(attribute) || "";
}

function ownSize(element: Element, inherited: number): number {
  const text = styleOf(element, "fontSize", "font-size");
  const value = Number.parseFloat(text);
  if (Number.isNaN(value)) return inherited;
  return text.endsWith("%") ? (inherited * value) / 100 : text.endsWith("em") ? inherited * value : value;
}

function fontSize(element: Element): number {
  const parent = element.parentElement;
  return ownSize(element, parent ? fontSize(parent) : 12);
}

function giveCanvas(view: JSDOM["window"]): void {
  const rasters = new WeakMap<HTMLCanvasElement, Raster>();
  Object.assign(view.HTMLCanvasElement.prototype, {
    getContext(this: HTMLCanvasElement, kind: string): Raster | null {
      if (kind !== "2d") return null;
      const raster = rasters.get(this) ?? new Raster(this.width, this.height);
      rasters.set(this, raster);
      return raster;
    },
    toDataURL(this: HTMLCanvasElement): string {
      const raster = rasters.get(this) ?? new Raster(this.width, this.height);
      return `data:image/png;base64,${raster.toPng().toString("base64")}`;
    },
  });
}
