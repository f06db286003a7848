/**
 * The one place that decides whether a name that came from a file, a hub or a stranger may become a path.
 * Both POSIX and Windows rules are applied everywhere, so that a folder stays safe when it is carried to another system.
 */
import { join } from "node:path";

const MAX_NAME = 1024;
// The device names of Windows are reserved with any extension.
const WINDOWS_DEVICE = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$/i;

/**
 * Why a relative name is unsafe, or undefined when it may be used.
 *
 * @param name The name as it came, with "/" between its parts.
 * @param bare True when the name must be a file beside its index, without any folder.
 */
export function unsafeName(name: string, bare = false): string | undefined {
  if (name.length === 0) return "it is empty";
  if (name.length > MAX_NAME) return `it is longer than ${MAX_NAME} characters`;
  if (name.includes("\0")) return "it holds a NUL character";
  if (name.includes("\\")) return "it holds a backslash";
  if (name.startsWith("/")) return "it is an absolute path";
  // A colon is a drive letter or an alternate data stream on Windows.
  if (name.includes(":")) return "it holds a colon";
  const parts = name.split("/");
  if (bare && parts.length > 1) return "it names another folder";
  for (const part of parts) {
    if (part === "") return "it has an empty part";
    if (part === "." || part === "..") return `it has the part "${part}"`;
    if (/[. ]$/.test(part)) return "a part of it ends in a dot or a space";
    if (WINDOWS_DEVICE.test(part)) return `"${part}" is a device on Windows`;
  }
  return undefined;
}

/**
 * Joins a name from outside to a folder, or throws what `fail` makes of the reason.
 *
 * @param folder A folder the user chose: taken as it is.
 * @param name A relative name that came from data.
 */
export function safeJoin(
  folder: string,
  name: string,
  fail: (reason: string) => Error,
  options: { bare?: boolean } = {},
): string {
  const reason = unsafeName(name, options.bare ?? false);
  if (reason !== undefined) throw fail(`${JSON.stringify(name)} cannot be used as a file name: ${reason}`);
  return join(folder, name);
}
