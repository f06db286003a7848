/**
 * As much of a 2-D canvas as heat maps draw with: filled rectangles, whole images, and PNG out. Colours are `rgba(r,g,b,a)`.
 */
import { crc32, deflateSync } from "node:zlib";

const maxPixels = 64 * 1024 * 1024;

/** A raster that plotly draws a heat map on. */
export class Raster {
  readonly width: number;
  readonly height: number;
  readonly #pixels: Uint8Array;
  fillStyle = "rgba(0,0,0,1)";

  constructor(width: number, height: number) {
    if (!(width >= 0 && height >= 0 && width * height <= maxPixels)) throw new RangeError("the picture is too large");
    this.width = width;
    this.height = height;
    this.#pixels = new Uint8Array(width * height * 4);
  }

  fillRect(x: number, y: number, width: number, height: number): void {
    const color = parseColor(this.fillStyle);
    const left = Math.max(0, Math.round(x));
    const right = Math.min(this.width, Math.round(x + width));
    const bottom = Math.min(this.height, Math.round(y + height));
    for (let row = Math.max(0, Math.round(y)); row < bottom; row++) {
      for (let column = left; column < right; column++) this.#pixels.set(color, (row * this.width + column) * 4);
    }
  }

  createImageData(width: number, height: number): { width: number; height: number; data: Uint8ClampedArray } {
    if (!(width * height <= maxPixels)) throw new RangeError("the picture is too large");
    return { width, height, data: new Uint8ClampedArray(width * height * 4) };
  }

  putImageData(image: { width: number; data: Uint8ClampedArray }): void {
    if (image.width !== this.width) throw new RangeError("only whole pictures can be put");
    this.#pixels.set(image.data.subarray(0, this.#pixels.length));
  }

  /** The picture as a PNG file (RGBA, 8 bits). */
  toPng(): Buffer {
    const stride = this.width * 4;
    const lines = Buffer.alloc((stride + 1) * this.height);
    for (let row = 0; row < this.height; row++) {
      lines.set(this.#pixels.subarray(row * stride, (row + 1) * stride), row * (stride + 1) + 1);
    }
    const header = Buffer.alloc(13);
    header.writeUInt32BE(this.width, 0);
    header.writeUInt32BE(this.height, 4);
    header.set([8, 6, 0, 0, 0], 8);
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    const parts = [signature, chunk("IHDR", header), chunk("IDAT", deflateSync(lines)), chunk("IEND", Buffer.alloc(0))];
    return Buffer.concat(parts);
  }
}

function chunk(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32(body) >>> 0, body.length + 4);
  return out;
}

function parseColor(style: string): [number, number, number, number] {
  const [r = 0, g = 0, b = 0, a = 1] = (style.match(/[\d.]+/g) ?? []).map(Number);
  return [r, g, b, Math.round(a * 255)];
}
