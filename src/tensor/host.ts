import * as calls from "./calls.js";
import { DTYPE_BYTES, DTYPE_CODE, type DType } from "./dtype.js";
import * as native from "./native.js";
import { sizeOf } from "./shape.js";
import { empty, Tensor } from "./tensor.js";

const SLOTS = 64;
const GPU = 1;

/** A tensor in the GPU's host memory: ops may be given it, but it is there to be copied from and to by `Transfer`. Elements are not set. */
export function emptyHost(shape: readonly number[], dtype: DType): Tensor {
  return new Tensor(native.alloc(sizeOf(shape) * DTYPE_BYTES[dtype], DTYPE_CODE[dtype], GPU, true), shape, dtype);
}

/** A tensor over a part of another's memory, in any dtype. */
export function part(source: Tensor, shape: readonly number[], dtype: DType, byteOffset: number): Tensor {
  const bytes = sizeOf(shape) * DTYPE_BYTES[dtype];
  const t = new Tensor(native.view(source.handle, byteOffset, bytes, DTYPE_CODE[dtype]), shape, dtype);
  t.aliased = true;
  source.aliased = true;
  return t;
}

/** Copies whose end nothing has been told to wait for yet, the oldest first. */
const open = new Set<Transfer>();
let next = 0;

/**
 * A copy between a GPU's own and its host memory that runs beside the operations which follow. Until `wait()` the target must not be read, the
 * source not be written and neither be freed.
 */
export class Transfer {
  private readonly to: Tensor;
  private readonly slot: number;

  constructor(from: Tensor, to: Tensor) {
    if (open.size >= SLOTS - 1) for (const oldest of [...open].slice(0, 1)) oldest.wait();
    this.to = to;
    this.slot = next++ % SLOTS;
    calls.transferStart(from.handle, to.handle, from.size, this.slot);
    open.add(this);
  }

  /** Lets operations from now on run after the copy; does not hold up JavaScript. */
  wait(): void {
    if (!open.delete(this)) return;
    const any = this.to.disposed ? empty([1], "float32", "cuda") : this.to; // says only which device is meant
    calls.transferWait(any.handle, this.slot);
    if (any !== this.to) any.dispose();
  }
}

/** Waits for all copies that are on their way: before the tensors of work that failed are freed. */
export function endTransfers(): void {
  for (const t of [...open]) t.wait();
}

/** Forgets copies that are on their way: after an interrupt, when the device has come to rest. */
export function resetTransfers(): void {
  open.clear();
}
