/** Rows with images of the small Qwen2-VL (scripts/peers/golden_qwen2_vl.py). */
import type { Picture } from "../../src/images/patches.js";
import { packedRows, type RowPictures, type Rows } from "../../src/nn/cache.js";
import type { Device } from "../../src/tensor/device.js";
import { goldenArrays, goldenValues } from "../golden.js";

export const arrays: ReturnType<typeof goldenArrays> = goldenArrays("qwen2-vl/golden");
// biome-ignore lint/suspicious/noExplicitAny: as `goldenValues`
export const values: any = goldenValues("qwen2-vl/golden");

export interface SeenRow {
  ids: number[];
  labels: number[];
  images: string[];
}

export const seen = values.seen as {
  rows: SeenRow[];
  greedy: { prompt: number[]; ids: number[]; images: string[] };
};

/** An image of a golden file. */
export function picture(name: string, from = arrays): Picture {
  const { data, shape } = from.get(name)!;
  const [height, width] = shape as [number, number, number];
  return { width, height, data: data as Uint8Array, tokens: (width * height) / 64 };
}

export function picturesOf(rows: readonly Pick<SeenRow, "ids" | "images">[], from = arrays): RowPictures {
  const length = Int32Array.from(rows, (row) => row.ids.length);
  const begin = length.map((_, i) => length.subarray(0, i).reduce((a, b) => a + b, 0));
  const ids = Int32Array.from(rows.flatMap((row) => row.ids));
  return { ids, begin, length, of: rows.map((row) => row.images.map((name) => picture(name, from))) };
}

/** Rows one behind the other. */
export function seenRows(rows: readonly Pick<SeenRow, "ids" | "images">[], device?: Device, from = arrays): Rows {
  const pictures = picturesOf(rows, from);
  const positions = Int32Array.from(rows.flatMap((row) => row.ids.map((_, i) => i)));
  return { ...packedRows(pictures.ids, positions, pictures.begin, pictures.length, device), pictures };
}
