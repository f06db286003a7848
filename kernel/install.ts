import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { LOGO_SVG, logoPng } from "./logo.js";

/** Where a kernelspec is installed. */
export type Place = { kind: "user" } | { kind: "sys-prefix" } | { kind: "prefix"; folder: string };

/** A kernelspec of this package that was found. */
export interface FoundSpec {
  folder: string;
  /** What front ends show. */
  displayName: string;
  /** The `main.js` that it starts. */
  main: string;
  /** Whether both the Node and the `main.js` of its argv are there. */
  works: boolean;
}

export interface InstallOptions {
  /** Name of the kernelspec; default {@link KERNEL_NAME}. */
  name?: string;
  /** What front ends show. */
  displayName?: string;
  /** How cells are checked until one says `%typecheck`; default "error", and "off" under the name of tslab's kernel for JavaScript. */
  typecheck?: "error" | "warn" | "off";
}

/** Name of the kernelspec. */
export const KERNEL_NAME = "tunebook";

/**
 * Writes the kernelspec: `kernel.json` and logos.
 *
 * @returns the folder it was written to.
 */
export async function installKernel(place: Place, options: InstallOptions = {}): Promise<string> {
  const { name = KERNEL_NAME, typecheck = name === "jslab" ? "off" : undefined } = options;
  const displayName =
    options.displayName ?? (name === KERNEL_NAME ? "TypeScript (tunebook)" : `TypeScript (tunebook: ${name})`);
  checkName(name);
  if (displayName.trim() === "") throw new Error("--display-name must not be empty.");
  const folder = join(dataFolder(place), "kernels", name);
  if (existsSync(join(folder, "kernel.json")) && readSpec(folder) === undefined) {
    throw new Error(`${folder} belongs to another kernel. Remove it first, or give another --name.`);
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "kernel.json"), `${JSON.stringify(kernelSpec(displayName, typecheck), null, 2)}\n`);
  writeFileSync(join(folder, "logo-svg.svg"), LOGO_SVG);
  for (const width of [32, 64]) {
    const png = await logoPng(width);
    if (png !== undefined) writeFileSync(join(folder, `logo-${width}x${width}.png`), png);
  }
  return folder;
}

/** Removes kernelspecs of this package; returns their folders. */
export function uninstallKernel(places: readonly Place[], name: string = KERNEL_NAME): string[] {
  checkName(name);
  const removed: string[] = [];
  for (const data of new Set(places.map(dataFolder))) {
    const folder = join(data, "kernels", name);
    if (readSpec(folder) === undefined) continue;
    rmSync(folder, { recursive: true });
    removed.push(folder);
  }
  return removed;
}

/** All kernelspecs of this package, under any name, in the folders where Jupyter looks. */
export function findSpecs(): FoundSpec[] {
  const folders = new Set<string>();
  for (const path of (process.env.JUPYTER_PATH ?? "").split(delimiter)) if (path !== "") folders.add(path);
  folders.add(userData());
  const prefix = sysPrefix();
  if (prefix !== undefined) folders.add(join(prefix, "share", "jupyter"));
  for (const path of ["/usr/local/share/jupyter", "/usr/share/jupyter"]) folders.add(path);
  return [...folders].flatMap((folder) => {
    const kernels = join(folder, "kernels");
    return existsSync(kernels) ? readdirSync(kernels).flatMap((name) => readSpec(join(kernels, name)) ?? []) : [];
  });
}

/** The folder of the Python environment that `jupyter` runs in, found without running Python if possible. */
export function sysPrefix(): string | undefined {
  const named = process.env.VIRTUAL_ENV ?? process.env.CONDA_PREFIX;
  if (named) return named;
  const jupyter = which("jupyter");
  const python = jupyter === undefined ? which("python3") : interpreterOf(jupyter);
  if (python === undefined) return undefined;
  const asked = spawnSync(python, ["-c", "import sys; print(sys.prefix)"], { encoding: "utf8", timeout: 10_000 });
  const prefix = asked.status === 0 ? asked.stdout.trim() : "";
  return prefix === "" ? undefined : prefix;
}

/** The first executable of that name on the path. */
export function which(program: string): string | undefined {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const file = join(folder, program);
    try {
      accessSync(file, constants.X_OK);
      if (statSync(file).isFile()) return file;
    } catch {}
  }
  return undefined;
}

function kernelSpec(displayName: string, typecheck: string | undefined): object {
  const main = fileURLToPath(new URL("./main.js", import.meta.url));
  return {
    argv: [process.execPath, main, "{connection_file}"],
    display_name: displayName,
    language: "typescript",
    interrupt_mode: "message",
    ...(typecheck === undefined ? {} : { env: { TUNEBOOK_TYPECHECK: typecheck } }),
    metadata: { debugger: false },
  };
}

function dataFolder(place: Place): string {
  if (place.kind === "user") return userData();
  if (place.kind === "prefix") return join(resolve(place.folder), "share", "jupyter");
  const prefix = sysPrefix();
  if (prefix === undefined) {
    throw new Error(
      "--sys-prefix: no Python environment was found. Activate it first (VIRTUAL_ENV or CONDA_PREFIX), or name its folder with --prefix DIR.",
    );
  }
  return join(prefix, "share", "jupyter");
}

function userData(): string {
  const named = process.env.JUPYTER_DATA_DIR;
  if (named) return named;
  if (process.platform === "darwin") return join(homedir(), "Library", "Jupyter");
  if (process.platform === "win32") return join(process.env.APPDATA ?? homedir(), "jupyter");
  return join(process.env.XDG_DATA_HOME ?? join(homedir(), ".local", "share"), "jupyter");
}

// The rule of jupyter_client for names of kernelspecs; it also keeps the folder inside `kernels`.
function checkName(name: string): void {
  if (/^[a-z0-9._-]+$/i.test(name) && !/^\.+$/.test(name)) return;
  throw new Error(`--name ${name}: a kernel's name has letters, digits, ".", "_" and "-" only.`);
}

function readSpec(folder: string): FoundSpec | undefined {
  try {
    const spec = JSON.parse(readFileSync(join(folder, "kernel.json"), "utf8")) as {
      argv?: unknown;
      display_name?: unknown;
    };
    const argv = Array.isArray(spec.argv) ? spec.argv.map(String) : [];
    const main = argv.find((part) => /[\\/]kernel[\\/]main\.js$/.test(part));
    if (main === undefined) return undefined;
    const works = existsSync(main) && existsSync(argv[0] ?? "");
    return { folder, displayName: String(spec.display_name ?? ""), main, works };
  } catch {
    return undefined;
  }
}

function interpreterOf(script: string): string | undefined {
  const shebang = /^#!\s*(\S+)/.exec(readFileSync(script, "latin1").slice(0, 300))?.[1];
  if (shebang?.includes("python") && existsSync(shebang)) return shebang;
  const beside = join(dirname(script), "python3");
  return existsSync(beside) ? beside : which("python3");
}
