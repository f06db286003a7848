/** Draws small pictures of coloured shapes, pixel by pixel: the same scene gives the same pixels on every machine. */
import sharp from "sharp";

/** Red, green and blue from 0 to 255. */
export type Rgb = readonly [red: number, green: number, blue: number];

/** The shapes that can be drawn. */
export const shapes = ["circle", "ring", "square", "triangle", "star", "cross"] as const;
export type Shape = (typeof shapes)[number];

/** A shape in a picture. */
export interface Figure {
  readonly shape: Shape;
  readonly rgb: Rgb;
  /** Its middle in pixels from the left and from the top. */
  readonly x: number;
  readonly y: number;
  /** Half the side of the box that it keeps to, in pixels. */
  readonly radius: number;
  /** In radians, clockwise. */
  readonly turn: number;
}

/** Side of a picture in pixels: six patches of 14, which become three tokens. */
export const side = 84;

/** Points tested along each side of a pixel. */
const fine = 3;

/** Corners (x and y in turn) of a regular polygon, or of a star whose inner corners are so far out. */
function corners(count: number, inner = 1): Float64Array {
  const points = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const angle = (2 * Math.PI * i) / count;
    const far = i % 2 ? inner : 1;
    points[2 * i] = far * Math.sin(angle);
    points[2 * i + 1] = -far * Math.cos(angle);
  }
  return points;
}

const triangle = corners(3);
const star = corners(10, 0.42);

/** Whether a point is within a polygon: how many of its edges a ray to the right meets. */
function within(polygon: Float64Array, x: number, y: number): boolean {
  let inside = false;
  for (let i = 0, j = polygon.length - 2; i < polygon.length; j = i, i += 2) {
    const ay = polygon[i + 1]!;
    const by = polygon[j + 1]!;
    if (ay > y === by > y) continue;
    if (x < ((polygon[j]! - polygon[i]!) * (y - ay)) / (by - ay) + polygon[i]!) inside = !inside;
  }
  return inside;
}

/** Whether a point of the plane in which the shape's box goes from -1 to 1 belongs to it. */
const covers: Readonly<Record<Shape, (x: number, y: number) => boolean>> = {
  circle: (x, y) => x * x + y * y < 0.81,
  ring: (x, y) => x * x + y * y < 0.88 && x * x + y * y > 0.3,
  square: (x, y) => Math.abs(x) < 0.76 && Math.abs(y) < 0.76,
  triangle: (x, y) => within(triangle, x, y),
  star: (x, y) => within(star, x, y),
  cross: (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.88 && Math.min(Math.abs(x), Math.abs(y)) < 0.28,
};

/** The pixels (side · side · 3) of figures on a plain ground. */
export function draw(ground: Rgb, figures: readonly Figure[]): Uint8Array {
  const pixels = new Uint8Array(side * side * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = ground[i % 3]!;
  for (const figure of figures) paint(pixels, figure);
  return pixels;
}

function paint(pixels: Uint8Array, { shape, rgb, x, y, radius, turn }: Figure): void {
  const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
  const inside = covers[shape];
  const from = (middle: number): number => Math.max(0, Math.floor(middle - radius));
  const to = (middle: number): number => Math.min(side, Math.ceil(middle + radius));
  for (let row = from(y); row < to(y); row++)
    for (let column = from(x); column < to(x); column++) {
      let hits = 0;
      for (let i = 0; i < fine; i++)
        for (let j = 0; j < fine; j++) {
          const dx = (column + (j + 0.5) / fine - x) / radius;
          const dy = (row + (i + 0.5) / fine - y) / radius;
          if (inside(cos * dx + sin * dy, cos * dy - sin * dx)) hits++;
        }
      if (hits === 0) continue;
      const at = (row * side + column) * 3;
      for (let c = 0; c < 3; c++)
        pixels[at + c] = Math.round((pixels[at + c]! * (fine * fine - hits) + rgb[c]! * hits) / (fine * fine));
    }
}

/** The file of a picture. Its bytes may differ between versions of the encoder, its pixels do not. */
export async function png(pixels: Uint8Array): Promise<Uint8Array> {
  const raw = { width: side, height: side, channels: 3 } as const;
  return new Uint8Array(await sharp(pixels, { raw }).png({ compressionLevel: 9 }).toBuffer());
}
