/** The thread in which Arrow bytes are decoded on trial. */
import { parentPort } from "node:worker_threads";
import { decodeArrow } from "./arrow-decode.js";

parentPort?.once("message", (bytes: Uint8Array<ArrayBuffer>) => {
  let error: string | undefined;
  try {
    decodeArrow(bytes);
  } catch (cause) {
    error = cause instanceof Error ? cause.message : String(cause);
  }
  parentPort?.postMessage({ bytes, error }, [bytes.buffer]);
});
