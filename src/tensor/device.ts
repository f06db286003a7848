import { ConfigError, DeviceError } from "../errors.js";
import * as native from "./native.js";

/** Where a tensor's memory stands and its operations run. */
export type Device = native.Device;

/** What users may ask for: "auto" is the GPU where one can be used, else the CPU. */
export type DeviceName = "auto" | "cpu" | "cuda" | `cuda:${number}`;

let chosen: Device | undefined;
let asked = false; // whether TUNEBOOK_DEVICE was looked at

/** The device asked for by `setDefaultDevice` or TUNEBOOK_DEVICE; `undefined` when nobody chose. */
function choice(): Device | undefined {
  if (!asked) {
    asked = true;
    const name = process.env.TUNEBOOK_DEVICE;
    if (name !== undefined && name !== "") chosen ??= resolveDevice(name as DeviceName, "TUNEBOOK_DEVICE");
  }
  return chosen;
}

/** Device of new tensors that name none: what `setDefaultDevice` or the variable TUNEBOOK_DEVICE say, else the CPU. */
export function defaultDevice(): Device {
  return chosen ?? choice() ?? "cpu";
}

/**
 * Sets the device of new tensors that name none, and what "auto" means from now on.
 * @throws DeviceError saying why the GPU cannot be used, and what to do.
 */
export function setDefaultDevice(device: DeviceName): void {
  chosen = resolveDevice(device, "setDefaultDevice");
  asked = true;
}

/**
 * The device that a name means, opened.
 * @param where the call or option that named it, for messages.
 * @throws ConfigError for another name; DeviceError when a GPU is asked for and cannot be used.
 */
export function resolveDevice(name: DeviceName, where: string): Device {
  if (name === "auto")
    return (where === "TUNEBOOK_DEVICE" ? undefined : choice()) ?? (cudaAvailable() ? "cuda" : "cpu");
  if (name === "cpu") return "cpu";
  if (!/^cuda(:\d+)?$/.test(String(name)))
    throw new ConfigError(`${where}: a device must be "auto", "cpu" or "cuda", received ${JSON.stringify(name)}.`);
  try {
    native.openDevice(name);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    throw new DeviceError(`${where}: ${error.message}`, { cause: error });
  }
  return "cuda";
}

/** Whether a CUDA device can be used; it is opened by this. */
export function cudaAvailable(): boolean {
  return native.cudaFailure() === undefined;
}
