import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { Json } from "../hub/json.js";
import type { Device } from "../tensor/device.js";
import type { RopeTables } from "../tensor/ops/attention.js";
import { outsideScope } from "../tensor/scope.js";
import { empty, type Tensor, tensor, view } from "../tensor/tensor.js";
import { inverseFrequencies } from "./rope.js";

/** Rotary embedding whose pairs turn by one of three positions: in time, down and across an image (Wang et al. 2024). */
export interface MropeConfig {
  readonly theta: number;
  /** Dimensions of a head. */
  readonly dim: number;
  /** Pairs that turn by each of the three. */
  readonly sections: readonly number[];
}

/** `rope_parameters`, or the older `rope_scaling` beside `rope_theta`. */
export function mropeConfig(c: ConfigFields, dim: number): MropeConfig {
  const p = c.object("rope_parameters") ?? c.object("rope_scaling");
  const theta = p?.has("rope_theta") ? p.number("rope_theta") : c.number("rope_theta", { default: 1e6 });
  for (const field of ["rope_type", "type"]) p?.string(field, { default: "mrope", oneOf: ["mrope", "default"] });
  const isCount = (value: Json): value is number => Number.isInteger(value) && (value as number) >= 0;
  const sections = p?.array("mrope_section", "numbers of pairs", isCount, { default: [16, 24, 24] }) ?? [16, 24, 24];
  if (sections.length !== 3 || sections.reduce((sum, n) => sum + n, 0) !== dim / 2)
    throw new ConfigError(
      `${c.where}: mrope_section should be three numbers that sum up to half a head's ${dim} dimensions, got [${sections.join(", ")}].`,
    );
  return { theta, dim, sections };
}

/** Positions of a sequence's tokens, and where the text after them goes on. */
export interface Positions {
  readonly time: Int32Array;
  readonly down: Int32Array;
  readonly across: Int32Array;
  readonly next: number;
}

/** A run of tokens that show an image of so many tokens down and across. */
export interface ImageTokens {
  /** Its first token's number in the sequence. */
  readonly at: number;
  readonly down: number;
  readonly across: number;
}

/**
 * Positions of `length` tokens among which images stand. Text counts up; the tokens of an image share its time, and their places count from there; text
 * goes on one after the largest position (Qwen2-VL's `get_rope_index`).
 *
 * @param first the first token's position
 */
export function positionsOf(length: number, images: readonly ImageTokens[], first = 0): Positions {
  const [time, down, across] = [new Int32Array(length), new Int32Array(length), new Int32Array(length)];
  let at = 0;
  let next = first;
  const text = (end: number): void => {
    for (; at < end; at++, next++) time[at] = down[at] = across[at] = next;
  };
  for (const image of images) {
    text(image.at);
    for (let y = 0; y < image.down; y++)
      for (let x = 0; x < image.across; x++, at++) {
        time[at] = next;
        down[at] = next + y;
        across[at] = next + x;
      }
    next += Math.max(image.down, image.across);
  }
  text(length);
  return { time, down, across, next };
}

/** Cosines and sines of rows by their three positions. */
export class MropeAngles {
  private readonly frequencies: Float32Array;
  /** Which of the three positions each pair turns by. */
  private readonly axis: readonly number[];

  constructor({ theta, dim, sections }: MropeConfig) {
    this.frequencies = inverseFrequencies({ theta, dim });
    this.axis = sections.flatMap((pairs, axis) => Array<number>(pairs).fill(axis));
  }

  /** Tables with a row for each row of the positions. */
  tables(positions: Positions, device: Device): RopeTables {
    const { length } = positions.time;
    const [cos, sin] = this.rows(positions, length);
    const shape = [length, this.frequencies.length];
    return { cos: tensor(cos, { shape, device }), sin: tensor(sin, { shape, device }) };
  }

  /** Cosines and sines of so many rows: those of the positions, then such as go on as text does. */
  rows({ time, down, across, next }: Positions, count: number): [cos: Float32Array, sin: Float32Array] {
    const half = this.frequencies.length;
    const cos = new Float32Array(count * half);
    const sin = new Float32Array(count * half);
    const of = [time, down, across];
    for (let row = 0; row < count; row++)
      for (let i = 0; i < half; i++) {
        const position = row < time.length ? of[this.axis[i]!]![row]! : next + row - time.length;
        const angle = Math.fround(position * this.frequencies[i]!);
        cos[row * half + i] = Math.cos(angle);
        sin[row * half + i] = Math.sin(angle);
      }
    return [cos, sin];
  }

  /** Pairs that turn: columns of a table. */
  get width(): number {
    return this.frequencies.length;
  }
}

/** The angles of a cache's sequences, kept beside it while they are decoded: a row for each place of the cache. */
export class CachedAngles implements Disposable {
  private readonly angles: MropeAngles;
  private readonly sequences: Positions[];
  private readonly stale = new Set<number>();
  private capacity = 0;
  private made: RopeTables | undefined;

  constructor(angles: MropeAngles, sequences: number) {
    this.angles = angles;
    this.sequences = Array.from({ length: sequences }, () => positionsOf(0, []));
  }

  /** A sequence begins anew: with these positions, then as text does. */
  begin(sequence: number, positions: Positions): void {
    this.sequences[sequence] = positions;
    this.stale.add(sequence);
  }

  /** The tables, for regions of so many tokens. They stay where they are as long as that number does. */
  upTo(capacity: number, device: Device): RopeTables {
    const { angles, sequences, stale } = this;
    if (!this.made || this.capacity !== capacity) {
      this[Symbol.dispose]();
      this.capacity = capacity;
      const shape = [sequences.length * capacity, angles.width];
      const made = (): Tensor => outsideScope(() => empty(shape, "float32", device));
      this.made = { cos: made(), sin: made() };
      for (const s of sequences.keys()) stale.add(s);
    }
    for (const s of stale) {
      const rows = angles.rows(sequences[s]!, capacity);
      const { cos, sin } = this.made;
      for (const [i, table] of [cos, sin].entries()) {
        using region = outsideScope(() => view(table, [capacity, angles.width], s * capacity * angles.width));
        region.set(rows[i]!);
      }
    }
    stale.clear();
    return this.made;
  }

  [Symbol.dispose](): void {
    this.made?.cos.dispose();
    this.made?.sin.dispose();
    this.made = undefined;
  }
}

/** Positions of sequences that begin at these rows of a flat batch; rows of none of them have position 0. */
export function flatPositions(all: readonly Positions[], begin: Int32Array, rows: number): Positions {
  const placed = (pick: (p: Positions) => Int32Array): Int32Array => {
    const out = new Int32Array(rows);
    for (const [s, p] of all.entries()) out.set(pick(p), begin[s]!);
    return out;
  };
  return { time: placed((p) => p.time), down: placed((p) => p.down), across: placed((p) => p.across), next: 0 };
}
