/** The font of static pictures: DejaVu Sans from its package, unpacked to TrueType, and the widths of its letters. */
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { inflateSync } from "node:zlib";

/** Family name under which the renderer knows the font. */
export const fontFamily = "DejaVu Sans";

const maxFontBytes = 4 * 1024 * 1024;

/** A WOFF 1.0 file as the TrueType file it was made from (W3C recommendation of 2012, sections 3 to 5). */
export function woffToTrueType(woff: Buffer): Buffer {
  if (woff.toString("latin1", 0, 4) !== "wOFF") throw new Error("not a WOFF file");
  const count = woff.readUInt16BE(12);
  const head = Buffer.alloc(12 + 16 * count);
  head.writeUInt32BE(woff.readUInt32BE(4), 0);
  head.writeUInt16BE(count, 4);
  const power = Math.floor(Math.log2(count));
  head.writeUInt16BE(16 << power, 6);
  head.writeUInt16BE(power, 8);
  head.writeUInt16BE((count - (1 << power)) * 16, 10);
  const parts: Buffer[] = [head];
  let offset = head.length;
  for (let i = 0; i < count; i++) {
    const entry = 44 + 20 * i;
    const start = woff.readUInt32BE(entry + 4);
    const packed = woff.readUInt32BE(entry + 8);
    const length = woff.readUInt32BE(entry + 12);
    const raw = woff.subarray(start, start + packed);
    const table = packed < length ? inflateSync(raw, { maxOutputLength: maxFontBytes }) : raw;
    if (table.length !== length) throw new Error("a WOFF table has another length than declared");
    const at = 12 + 16 * i;
    woff.copy(head, at, entry, entry + 4);
    head.writeUInt32BE(woff.readUInt32BE(entry + 16), at + 4);
    head.writeUInt32BE(offset, at + 8);
    head.writeUInt32BE(length, at + 12);
    const padded = Buffer.alloc((length + 3) & ~3);
    table.copy(padded);
    parts.push(padded);
    offset += padded.length;
  }
  return Buffer.concat(parts);
}

/** Widths and heights of a TrueType font, in units of its size. */
export class FontMetrics {
  readonly ascent: number;
  readonly descent: number;
  readonly #glyphs = new Map<number, number>();
  readonly #advances: Float64Array;

  constructor(font: Buffer) {
    const tables = new Map<string, Buffer>();
    for (let i = 0; i < font.readUInt16BE(4); i++) {
      const entry = 12 + 16 * i;
      const start = font.readUInt32BE(entry + 8);
      tables.set(
        font.toString("latin1", entry, entry + 4),
        font.subarray(start, start + font.readUInt32BE(entry + 12)),
      );
    }
    const unitsPerEm = tables.get("head")!.readUInt16BE(18);
    const hhea = tables.get("hhea")!;
    this.ascent = hhea.readInt16BE(4) / unitsPerEm;
    this.descent = -hhea.readInt16BE(6) / unitsPerEm;
    const hmtx = tables.get("hmtx")!;
    this.#advances = Float64Array.from(
      { length: hhea.readUInt16BE(34) },
      (_, i) => hmtx.readUInt16BE(4 * i) / unitsPerEm,
    );
    this.#readCharacters(tables.get("cmap")!);
  }

  /** Whether the font has a character. */
  has(code: number): boolean {
    return this.#glyphs.has(code);
  }

  /** Width of a text at a size; characters that the font lacks count as a square or, where narrow, 0.6 of one. */
  width(text: string, size: number): number {
    let sum = 0;
    for (const character of text) {
      const code = character.codePointAt(0)!;
      const glyph = this.#glyphs.get(code);
      if (glyph !== undefined) sum += this.#advances[Math.min(glyph, this.#advances.length - 1)]!;
      else sum += code >= 0x1100 ? 1 : 0.6;
    }
    return sum * size;
  }

  #readCharacters(cmap: Buffer): void {
    for (let i = 0; i < cmap.readUInt16BE(2); i++) {
      const table = cmap.subarray(cmap.readUInt32BE(4 + 8 * i + 4));
      const format = table.readUInt16BE(0);
      if (format === 12) this.#readGroups(table);
      else if (format === 4) this.#readSegments(table);
    }
  }

  #readGroups(table: Buffer): void {
    for (let i = 0; i < table.readUInt32BE(12); i++) {
      const at = 16 + 12 * i;
      const [start, end, glyph] = [table.readUInt32BE(at), table.readUInt32BE(at + 4), table.readUInt32BE(at + 8)];
      for (let code = start; code <= end && code <= 0x10ffff; code++) this.#glyphs.set(code, glyph + code - start);
    }
  }

  #readSegments(table: Buffer): void {
    const doubled = table.readUInt16BE(6);
    for (let i = 0; i < doubled; i += 2) {
      const end = table.readUInt16BE(14 + i);
      const start = table.readUInt16BE(16 + doubled + i);
      const delta = table.readUInt16BE(16 + 2 * doubled + i);
      const rangeAt = 16 + 3 * doubled + i;
      const range = table.readUInt16BE(rangeAt);
      for (let code = start; code <= end && code < 0xffff; code++) {
        const listed = range === 0 ? code : table.readUInt16BE(rangeAt + range + 2 * (code - start));
        const glyph = range !== 0 && listed === 0 ? 0 : (listed + delta) & 0xffff;
        if (glyph !== 0) this.#glyphs.set(code, glyph);
      }
    }
  }
}

/** The font as bytes and as a file; the renderer takes files alone, so one is kept in the user's cache. */
export async function loadFont(): Promise<{ metrics: FontMetrics; file: string }> {
  const require = createRequire(import.meta.url);
  const woff = await readFile(require.resolve("@fontsource/dejavu-sans/files/dejavu-sans-latin-400-normal.woff"));
  const font = woffToTrueType(woff);
  return { metrics: new FontMetrics(font), file: await keepFile(font) };
}

async function keepFile(font: Buffer): Promise<string> {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  let failure: unknown;
  for (const folder of [
    join(cache, "tunebook", "fonts"),
    join(tmpdir(), `tunebook-fonts-${process.getuid?.() ?? "user"}`),
  ]) {
    try {
      const file = join(folder, "DejaVuSans.ttf");
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const kept = await readFile(file).catch(() => undefined);
      if (kept?.equals(font)) return file;
      await chmod(folder, 0o700); // fails in a folder of another user
      const part = `${file}.${process.pid}.part`;
      await writeFile(part, font, { mode: 0o600 });
      await rename(part, file);
      return file;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
