/** A plot: one figure, shown interactively where that works, as a picture everywhere else, as text on terminals. */
import { randomBytes } from "node:crypto";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { defineDisplay, type MimeBundle } from "../display/host.js";
import { ConfigError } from "../errors.js";
import { type PictureSize, render } from "./render/render.js";
import type { Figure, PlotOptions } from "./theme.js";

let warned = false;

/** What the functions of `plot` return. */
export class Plot {
  /** The plotly figure, plain JSON: change it before the plot is shown if you need more than the options give. */
  readonly figure: Figure;
  readonly #text: () => string;
  readonly #options: PlotOptions;

  /** Use `plot.line` and the like. */
  constructor(figure: Figure, options: PlotOptions, text: () => string) {
    this.figure = figure;
    this.#options = options;
    this.#text = text;
  }

  /** The plot as a PNG file, made in Node without a browser. */
  async toPng(size: PictureSize = {}): Promise<Uint8Array> {
    return (await this.#render("png", size)) as Uint8Array;
  }

  /** The plot as SVG text. */
  async toSvg(size: PictureSize = {}): Promise<string> {
    return (await this.#render("svg", size)) as string;
  }

  /** Writes the plot as .png, .svg or .json (the figure). The file appears whole or not at all. */
  async save(file: string, size: PictureSize = { scale: 2 }): Promise<void> {
    const content = await this.#content(file, size);
    await mkdir(dirname(file), { recursive: true });
    const part = `${file}.${randomBytes(6).toString("hex")}.part`;
    try {
      await writeFile(part, content, { flag: "wx" });
      await rename(part, file);
    } catch (error) {
      await rm(part, { force: true });
      throw error;
    }
  }

  /** A small chart of characters, or a summary. */
  toText(): string {
    return this.#text();
  }

  #content(file: string, size: PictureSize): Promise<Uint8Array | string> | string {
    switch (extname(file).toLowerCase()) {
      case ".png":
        return this.toPng(size);
      case ".svg":
        return this.toSvg(size);
      case ".json":
        return `${JSON.stringify(this.figure)}\n`;
      default:
        throw new ConfigError(`plot.save: expected a file name ending in .png, .svg or .json, got ${file}`);
    }
  }

  #render(format: "png" | "svg", size: PictureSize): Promise<Uint8Array | string> {
    const { data, layout } = this.figure;
    const width = size.width ?? this.#options.width ?? 800;
    const height = size.height ?? this.#options.height ?? (layout.height as number);
    return render({ figure: { data, layout }, width, height, scale: size.scale ?? 1, format });
  }
}

async function bundleOf(plot: Plot): Promise<MimeBundle> {
  const bundle: MimeBundle = { "application/vnd.plotly.v1+json": plot.figure, "text/plain": plot.toText() };
  try {
    const png = await plot.toPng();
    bundle["image/png"] = Buffer.from(png.buffer, png.byteOffset, png.byteLength).toString("base64");
  } catch (error) {
    if (!warned) {
      warned = true;
      console.warn(`plot: no picture could be drawn, only the interactive form is shown (${(error as Error).message})`);
    }
  }
  return bundle;
}

defineDisplay(Plot, bundleOf, (plot) => plot.toText());
