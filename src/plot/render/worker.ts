/** The thread that draws: figure → SVG → PNG. */
import { parentPort } from "node:worker_threads";
import { Resvg } from "@resvg/resvg-js";
import { type FontMetrics, fontFamily, loadFont } from "./font.js";
import { openPlotly, type Plotly } from "./window.js";

/** What the main thread asks for. */
export interface RenderRequest {
  id: number;
  figure: { data: object[]; layout: object };
  width: number;
  height: number;
  scale: number;
  format: "png" | "svg";
}

/** The answer: one of the two. */
export interface RenderAnswer {
  id: number;
  result?: Uint8Array | string;
  error?: string;
}

interface Tools {
  plotly: Plotly;
  metrics: FontMetrics;
  file: string;
}

let tools: Promise<Tools> | undefined;

async function open(): Promise<Tools> {
  const { metrics, file } = await loadFont();
  return { metrics, file, plotly: await openPlotly(metrics) };
}

async function render(request: RenderRequest): Promise<Uint8Array | string> {
  tools ??= open();
  const { plotly, metrics, file } = await tools;
  const { data, layout } = request.figure;
  const font = { ...(layout as { font?: object }).font, family: fontFamily };
  const { width, height } = request;
  const address = await plotly.toImage(
    { data, layout: { ...layout, font, width, height } },
    { format: "svg", width, height },
  );
  const svg = decodeURIComponent(address.slice(address.indexOf(",") + 1));
  if (request.format === "svg") return svg;
  const picture = new Resvg(svg, {
    // Reading all fonts of a machine takes time, so it is done only for characters that DejaVu lacks.
    font: {
      loadSystemFonts: hasOther(svg, metrics),
      fontFiles: [file],
      defaultFontFamily: fontFamily,
      sansSerifFamily: fontFamily,
    },
    background: "white",
    // Cells of heat maps keep their edges.
    imageRendering: 1,
    fitTo: { mode: "zoom", value: request.scale },
  });
  return picture.render().asPng();
}

function hasOther(svg: string, metrics: FontMetrics): boolean {
  for (const character of new Set(svg)) {
    const code = character.codePointAt(0)!;
    if (code > 126 && !metrics.has(code)) return true;
  }
  return false;
}

// Pictures are drawn one after the other: plotly keeps state in its window.
let last: Promise<void> = Promise.resolve();
parentPort?.on("message", (request: RenderRequest) => {
  last = last.then(async () => {
    let answer: RenderAnswer;
    try {
      answer = { id: request.id, result: await render(request) };
    } catch (error) {
      answer = { id: request.id, error: error instanceof Error ? error.message : String(error) };
    }
    parentPort?.postMessage(answer);
  });
});
