import { ShapeError } from "../errors.js";
import * as calls from "../tensor/calls.js";
import { type Device, defaultDevice } from "../tensor/device.js";
import type { Segments } from "../tensor/ops/attention.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor, tensor } from "../tensor/tensor.js";

/** Rows of a flat batch and what they may attend to. */
export interface Rows {
  /** Token ids, int32 (rows). */
  readonly ids: Tensor;
  /** Position of each row in its sequence, int32 (rows). */
  readonly positions: Tensor;
  readonly segments: Segments;
  /** One more than the largest position. */
  readonly maxPosition: number;
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

/**
 * Keys and values of earlier tokens: for each layer (sequences · capacity, kvHeads·headDim), one region a sequence, in the dtype of the first keys
 * that come.
 */
export class KvCache {
  readonly sequences: number;
  readonly capacity: number;
  /** Tokens in each region. */
  readonly lengths: Int32Array;
  readonly device: Device;
  private readonly keys: Tensor[] = [];
  private readonly values: Tensor[] = [];
  private pending: { begin: Int32Array; length: Int32Array } | undefined;

  /** @param device that of the model. */
  constructor(sequences: number, capacity: number, device: Device = defaultDevice()) {
    this.sequences = sequences;
    this.capacity = capacity;
    this.device = device;
    this.lengths = new Int32Array(sequences);
  }

  /**
   * Prepares rows whose sequence s brings length[s] new tokens that stand from row begin[s] on.
   * @throws ShapeError when a region is full.
   */
  rows(ids: Int32Array, begin: Int32Array, length: Int32Array): Rows {
    const positions = new Int32Array(ids.length);
    const keyBegin = new Int32Array(this.sequences);
    const keyLength = new Int32Array(this.sequences);
    let maxPosition = 1;
    for (let s = 0; s < this.sequences; s++) {
      const had = this.lengths[s]!;
      const fresh = length[s]!;
      if (had + fresh > this.capacity) {
        throw new ShapeError(`The key-value cache holds ${this.capacity} tokens; ${had} + ${fresh} do not fit.`);
      }
      for (let i = 0; i < fresh; i++) positions[begin[s]! + i] = had + i;
      keyBegin[s] = s * this.capacity;
      keyLength[s] = had + fresh;
      maxPosition = Math.max(maxPosition, had + fresh);
    }
    this.pending = { begin, length };
    const sent = (values: Int32Array): Tensor => tensor(values, { device: this.device });
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
      maxPosition,
    };
  }

  /** Puts a layer's new keys and values (rows, width) behind the earlier ones; gives the layer's whole memory. */
  append(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    const { begin, length } = this.pending!;
    const width = k.dim(-1);
    const shape = [this.sequences * this.capacity, width];
    const keys = (this.keys[layer] ??= outsideScope(() => emptyLike(k, shape)));
    const values = (this.values[layer] ??= outsideScope(() => emptyLike(v, shape)));
    for (let s = 0; s < this.sequences; s++) {
      const n = length[s]! * width;
      const from = begin[s]! * width;
      const to = (s * this.capacity + this.lengths[s]!) * width;
      if (n === 0) continue;
      calls.copy2d(k.handle, keys.handle, 1, n, from, n, to, n, 0);
      calls.copy2d(v.handle, values.handle, 1, n, from, n, to, n, 0);
    }
    return [keys, values];
  }

  /** Counts the rows of the last `rows()` in, once every layer has appended. */
  advance(): void {
    const { length } = this.pending!;
    for (let s = 0; s < this.sequences; s++) this.lengths[s] = this.lengths[s]! + length[s]!;
    this.pending = undefined;
  }

  get bytes(): number {
    return [...this.keys, ...this.values].reduce((n, t) => n + t.bytes, 0);
  }

  dispose(): void {
    for (const t of [...this.keys.splice(0), ...this.values.splice(0)]) t.dispose();
  }
}
