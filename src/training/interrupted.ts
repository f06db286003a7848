import { setImmediate as turn } from "node:timers/promises";
import { interruptHost } from "../display/host.js";
import type { Device } from "../tensor/device.js";
import { recover, state } from "../tensor/native.js";
import { addScaled, fill } from "../tensor/ops/elementwise.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope, scope } from "../tensor/scope.js";
import { empty, type Tensor, view } from "../tensor/tensor.js";

const EXACT = 2 ** 24; // float32 counts so far
const PATIENCE = 3000; // ms until the kernel's interrupt is over

/**
 * Tells whether an optimizer step was broken off in its middle. An interrupt drops whatever is queued, and the queue keeps its order: two counters
 * around the updates, counted up by the device itself, are equal when none of them or all were done.
 */
export class UpdateMarks {
  private readonly counts: Tensor; // [begun, ended]
  private readonly one: Tensor;
  private readonly device: Device;
  /** Updates whose results were read. */
  private finished = 0;

  constructor(device: Device) {
    this.device = device;
    this.counts = outsideScope(() => fill(empty([2], "float32", device), 0));
    this.one = outsideScope(() => fill(empty([1], "float32", device), 1));
  }

  /** Before an update is queued. */
  begin(): void {
    this.count(0);
  }

  /** After it was queued. */
  end(): void {
    this.count(1);
  }

  /** Its result was read. */
  done(): void {
    this.finished++;
    if (this.finished < EXACT) return;
    fill(this.counts, 0);
    this.finished = 0;
  }

  private count(which: number): void {
    scope(() => noGrad(() => addScaled(view(this.counts, [1], which), this.one)));
  }

  /** After an interrupt: waits until it is over, and says where it struck: before the update of the newest step, after it, or within. */
  async where(): Promise<"before" | "after" | "within"> {
    const flag = interruptHost()?.flag;
    const end = performance.now() + PATIENCE;
    // No timer: the kernel's interrupt takes those away.
    while (flag && Atomics.load(flag, 0) !== 0 && performance.now() < end) await turn();
    if (state(this.device) !== "running") recover(this.device);
    try {
      const [begun, ended] = await this.counts.data();
      if (begun !== ended) return "within";
      return begun === this.finished ? "before" : "after";
    } catch {
      return "within"; // interrupted again: nobody knows
    }
  }

  dispose(): void {
    this.counts.dispose();
    this.one.dispose();
  }
}
