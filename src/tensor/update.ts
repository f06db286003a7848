import { codeOf, type Device, dryMemory, openDevices, updater } from "./native.js";

/** The addon's calls, by the number of a device: 0 the CPU, 1 the GPU. @internal */
export interface UpdateAddon {
  updateBegin(device: number): void;
  /** Without `keep` what was queued since the beginning is dropped. Nothing happens where no update was begun. */
  updateEnd(device: number, keep: boolean): void;
  /** For tests: raises the interrupt flag once the operation of this number has been run. */
  strikeAfter(device: number, sequence: number): void;
}

/**
 * Operations that change a model's state together, such as all of an optimizer step: an interrupt comes before all of them or takes effect after the last,
 * so that no parameter is ever a step ahead of another. A read that `work` asks for arrives if and only if they are done.
 *
 * They begin once `work` has returned; if it throws, none is done. (Those of work that fills the queue begin before: then what was done stays.)
 */
export function wholeUpdate<T>(device: Device, work: () => T): T {
  if (dryMemory()) return work();
  const place = codeOf(device);
  updater.updateBegin(place);
  let keep = false;
  try {
    const result = work();
    keep = true;
    return result;
  } finally {
    updater.updateEnd(place, keep);
  }
}

/** Drops an update whose JavaScript was stopped in its middle. */
export function resetUpdates(): void {
  for (const device of openDevices()) updater.updateEnd(codeOf(device), false);
}
