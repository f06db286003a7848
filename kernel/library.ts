import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

/**
 * The library that a command belongs to, as far as `T` says what the command needs of it. It is found as cells find it, by the package's name: kernel and library never
 * import each other.
 */
export async function loadLibrary<T>(): Promise<T> {
  const path = createRequire(import.meta.url).resolve("tunebook");
  return (await import(pathToFileURL(path).href)) as T;
}
