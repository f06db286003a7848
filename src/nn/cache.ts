import { ShapeError } from "../errors.js";
import type { Picture } from "../images/patches.js";
import * as calls from "../tensor/calls.js";
import { type Device, defaultDevice } from "../tensor/device.js";
import { asCached, type Segments } from "../tensor/ops/attention.js";
import { inDType } from "../tensor/ops/layout.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor, tensor } from "../tensor/tensor.js";

/** Images that stand in rows of tokens, and what a model has to know on the host to put them there. */
export interface RowPictures {
  /** Token ids (rows); those that stand for an image's tokens say where it is. */
  readonly ids: Int32Array;
  /** Where each sequence begins, and its length. */
  readonly begin: Int32Array;
  readonly length: Int32Array;
  /** The images of each sequence, in order. */
  readonly of: readonly (readonly Picture[])[];
}

/** Rows of a flat batch and what they may attend to. */
export interface Rows {
  /** Token ids, int32 (rows). */
  readonly ids: Tensor;
  /** Position of each row in its sequence, int32 (rows). */
  readonly positions: Tensor;
  readonly segments: Segments;
  /** More than the largest position; with a cache its capacity, since positions go on in device memory. */
  readonly maxPosition: number;
  /** Largest noise that is added to each row's embedding (rows, 1), while training with NEFTune. */
  readonly noise?: Tensor;
  /** Images that the tokens show, for a model that sees. */
  readonly pictures?: RowPictures;
}

/**
 * Rows of a batch laid out flat: sequence s stands in rows begin[s] … begin[s]+length[s]-1 and attends to itself alone; other rows are padding.
 * @param device that of the model they are for.
 */
export function packedRows(
  ids: Int32Array,
  positions: Int32Array,
  begin: Int32Array,
  length: Int32Array,
  device: Device = defaultDevice(),
): Rows {
  const queryBegin = tensor(begin, { device });
  const queryLength = tensor(length, { device });
  let maxPosition = 1;
  for (const p of positions) if (p >= maxPosition) maxPosition = p + 1;
  return {
    ids: tensor(ids, { device }),
    positions: tensor(positions, { device }),
    segments: { count: begin.length, queryBegin, queryLength, keyBegin: queryBegin, keyLength: queryLength },
    maxPosition,
  };
}

/** How a cache holds keys and values. "int8": codes of 8 bits with a float32 scale, the largest magnitude, for each token and key head. */
export type CacheDType = "float32" | "bfloat16" | "float16" | "int8";

/**
 * Keys and values of earlier tokens: for each layer (sequences · capacity, kvHeads·headDim), one region a sequence, in a dtype of one's choice or that of
 * the first keys that come.
 */
export class KvCache {
  readonly sequences: number;
  /** Tokens in each region. */
  readonly lengths: Int32Array;
  readonly device: Device;
  private places: number;
  private readonly keys: Tensor[] = [];
  private readonly values: Tensor[] = [];
  /** Scales of 8-bit keys and values, (sequences · capacity, kvHeads). */
  private readonly keyScales: Tensor[] = [];
  private readonly valueScales: Tensor[] = [];
  private readonly dtype: CacheDType | undefined;
  private readonly headDim: number;
  /** Where the rows under way go (int32, one a row), and how many each sequence brings if the host counts them. */
  private slots: Tensor | undefined;
  private fresh: Int32Array | undefined;
  private following = false;
  /** What a model keeps of the sequences for as long as the cache lives; freed with it. */
  beside: Disposable | undefined;

  /**
   * @param device that of the model.
   * @param dtype of keys and values; for "int8" `headDim` is needed too.
   */
  constructor(
    sequences: number,
    capacity: number,
    device: Device = defaultDevice(),
    { dtype, headDim = 0 }: { dtype?: CacheDType | undefined; headDim?: number } = {},
  ) {
    this.sequences = sequences;
    this.places = capacity;
    this.device = device;
    this.dtype = dtype;
    this.headDim = headDim;
    this.lengths = new Int32Array(sequences);
  }

  /** Tokens that a region has room for. */
  get capacity(): number {
    return this.places;
  }

  /** Where the rows under way go, counted through all regions: int32, one a row. */
  get rowPlaces(): Tensor {
    return this.slots!;
  }

  /**
   * Prepares rows whose sequence s brings length[s] new tokens that stand from row begin[s] on.
   * @throws ShapeError when a region is full.
   */
  rows(ids: Int32Array, begin: Int32Array, length: Int32Array): Rows {
    const positions = new Int32Array(ids.length);
    const keyBegin = new Int32Array(this.sequences);
    const keyLength = new Int32Array(this.sequences);
    const slots = new Int32Array(ids.length).fill(-1);
    for (let s = 0; s < this.sequences; s++) {
      const had = this.lengths[s]!;
      const fresh = length[s]!;
      if (had + fresh > this.places) {
        throw new ShapeError(`The key-value cache holds ${this.places} tokens; ${had} + ${fresh} do not fit.`);
      }
      keyBegin[s] = s * this.places;
      keyLength[s] = had + fresh;
      for (let i = 0; i < fresh; i++) {
        positions[begin[s]! + i] = had + i;
        slots[begin[s]! + i] = keyBegin[s]! + had + i;
      }
    }
    const sent = (values: Int32Array): Tensor => tensor(values, { device: this.device });
    this.forget();
    this.fresh = length;
    this.slots = outsideScope(() => sent(slots));
    return {
      ids: sent(ids),
      positions: sent(positions),
      segments: {
        count: this.sequences,
        queryBegin: sent(begin),
        queryLength: sent(length),
        keyBegin: sent(keyBegin),
        keyLength: sent(keyLength),
      },
      maxPosition: this.places,
    };
  }

  /** The next rows go to places that stand in device memory: int32, one a row, below 0: nowhere. `lengths` is not counted. */
  follow(slots: Tensor): void {
    this.forget();
    this.slots = slots;
    this.following = true;
  }

  /** Puts a layer's new keys and values (rows, width) behind the earlier ones; gives the layer's whole memory. */
  append(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    const width = k.dim(-1);
    const places = this.sequences * this.places;
    const dtype = this.dtype === "int8" ? "uint8" : (this.dtype ?? k.dtype);
    const keys = (this.keys[layer] ??= outsideScope(() => emptyLike(k, [places, width], dtype)));
    const values = (this.values[layer] ??= outsideScope(() => emptyLike(v, [places, width], dtype)));
    const rows = k.size / width;
    if (dtype === "uint8") {
      if (this.headDim < 1 || width % this.headDim !== 0)
        throw new ShapeError(
          `The key-value cache of 8 bits needs the size of a head, a divisor of ${width}; it was made with ${this.headDim}.`,
        );
      const heads = width / this.headDim;
      const scales = (): Tensor => outsideScope(() => emptyLike(k, [places, heads], "float32"));
      const [a, b] = [(this.keyScales[layer] ??= scales()), (this.valueScales[layer] ??= scales())];
      asCached(keys, a);
      asCached(values, b);
      calls.cacheAppend8(
        k.handle, v.handle, this.slots!.handle, keys.handle, values.handle, a.handle, b.handle, rows, heads, this.headDim, places,
      ); // biome-ignore format: one line
      return [keys, values];
    }
    const [from, to] = [inDType(k, keys.dtype), inDType(v, values.dtype)];
    if (keys.dtype !== k.dtype) for (const lines of [keys, values]) asCached(lines, undefined);
    calls.cacheAppend(from.handle, to.handle, this.slots!.handle, keys.handle, values.handle, rows, width, places);
    return [keys, values];
  }

  /** Counts the rows of the last `rows()` in, once every layer has appended. */
  advance(): void {
    for (let s = 0; this.fresh && s < this.sequences; s++) this.lengths[s] = this.lengths[s]! + this.fresh[s]!;
    this.forget();
  }

  private forget(): void {
    if (!this.following) this.slots?.dispose();
    this.slots = undefined;
    this.fresh = undefined;
    this.following = false;
  }

  /** Makes room for `capacity` tokens in each region. */
  grow(capacity: number): void {
    if (capacity <= this.places) return;
    const moved = (old: Tensor): Tensor => {
      const width = old.dim(-1);
      const to = outsideScope(() => emptyLike(old, [this.sequences * capacity, width]));
      const line = this.places * width;
      calls.copy2d(old.handle, to.handle, this.sequences, line, 0, line, 0, capacity * width, 0);
      old.dispose();
      return to;
    };
    for (const all of this.tensors()) for (const [i, old] of all.entries()) all[i] = moved(old);
    this.places = capacity;
  }

  /** Bytes of keys, values and scales. */
  get bytes(): number {
    return this.tensors()
      .flat()
      .reduce((n, t) => n + t.bytes, 0);
  }

  private tensors(): Tensor[][] {
    return [this.keys, this.values, this.keyScales, this.valueScales];
  }

  dispose(): void {
    this.forget();
    this.beside?.[Symbol.dispose]();
    this.beside = undefined;
    for (const all of this.tensors()) for (const t of all.splice(0)) t.dispose();
  }
}
