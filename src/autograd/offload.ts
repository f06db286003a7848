import { emptyHost, Transfer } from "../tensor/host.js";
import { dryMemory } from "../tensor/native.js";
import { outsideScope } from "../tensor/scope.js";
import { emptyLike, type Tensor } from "../tensor/tensor.js";

const LEAST = 65536; // bytes below which a copy is not worth its launch

/** Whether a tensor's elements can wait in host memory: an intermediate result on a GPU that is not made again anyway. */
export function movable(t: Tensor): boolean {
  const device = dryMemory()?.device ?? t.device;
  return device === "cuda" && t.scoped && t.remake === undefined && !(t.leaf && t.requiresGrad) && t.bytes >= LEAST;
}

/** A tensor on its way to host memory and back. The copies run beside other work. */
export class Offloaded {
  readonly tensor: Tensor;
  private readonly host: Tensor;
  private readonly leaving: Transfer;
  private coming: { tensor: Tensor; transfer: Transfer } | undefined;
  private left = false;

  /** Starts the copy. */
  constructor(tensor: Tensor) {
    this.tensor = tensor;
    this.host = emptyHost(tensor.shape, tensor.dtype);
    this.leaving = new Transfer(tensor, this.host);
  }

  /** Frees the tensor's own memory; its elements come back when they are next read. */
  leave(): void {
    this.leaving.wait();
    this.tensor.remake = () => this.back();
    this.tensor.forget();
    this.left = true;
  }

  /** Starts the copy back, for a read that will come soon. */
  fetch(): void {
    if (!this.left || this.coming || this.tensor.held || this.tensor.disposed) return;
    const tensor = emptyLike(this.tensor, this.tensor.shape, this.tensor.dtype);
    this.coming = { tensor, transfer: new Transfer(this.host, tensor) };
  }

  private back(): Tensor {
    outsideScope(() => this.fetch());
    const { tensor, transfer } = this.coming!;
    this.coming = undefined;
    transfer.wait();
    return tensor;
  }
}
