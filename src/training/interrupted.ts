import { setImmediate as turn } from "node:timers/promises";
import { interruptHost } from "../display/host.js";
import { InterruptedError } from "../errors.js";
import type { Device } from "../tensor/device.js";
import { recover, state } from "../tensor/native.js";

const PATIENCE = 3000; // ms until the kernel's interrupt is over

/** Waits until an interrupt is over, and makes the device work again. */
export async function interruptOver(device: Device): Promise<void> {
  const flag = interruptHost()?.flag;
  const end = performance.now() + PATIENCE;
  // No timer: the kernel's interrupt takes those away.
  while (flag && Atomics.load(flag, 0) !== 0 && performance.now() < end) await turn();
  if (state(device) !== "running") recover(device);
}

/** Reads what was computed before an update that is done: an interrupt since then takes it away only on its way here, so it is read again. */
export async function readAfterUpdate<T>(device: Device, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof InterruptedError)) throw error;
    await interruptOver(device);
    return read();
  }
}
