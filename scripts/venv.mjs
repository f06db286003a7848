// Makes <repo>/.venv (TUNEBOOK_VENV names another folder) and installs the pinned Python packages of one or more purposes into it:
//   node scripts/venv.mjs jupyter|peers …
// Nothing is done when a purpose is already installed from the same requirements file.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const venv = process.env.TUNEBOOK_VENV ?? join(root, ".venv");
const lock = join(root, ".cache", "venv.lock");
const windows = process.platform === "win32";

/** Path of a program inside the environment, e.g. `bin("python")`. */
export function bin(name) {
  return windows ? join(venv, "Scripts", `${name}.exe`) : join(venv, "bin", name);
}

/** Installs packages into the environment, quietly. */
export function pipInstall(...args) {
  run(bin("python"), ["-m", "pip", "install", "-qq", "--disable-pip-version-check", ...args]);
}

/**
 * Makes sure that the environment exists and holds the packages of each purpose.
 * @param {("jupyter" | "peers")[]} purposes
 * @returns {Promise<string>} the environment's folder
 */
export async function ensureVenv(...purposes) {
  const todo = purposes.filter((purpose) => !upToDate(purpose));
  if (todo.length === 0) return venv;
  await acquire();
  try {
    if (!existsSync(bin("python"))) make();
    for (const purpose of todo) {
      if (upToDate(purpose)) continue; // another process was first
      console.log(`venv: installing the packages for "${purpose}" (${requirements(purpose)})`);
      pipInstall("-r", requirements(purpose), "-c", constraints);
      writeFileSync(marker(purpose), digest(purpose));
    }
  } finally {
    rmSync(lock, { recursive: true, force: true });
  }
  return venv;
}

function make() {
  const python = process.env.PYTHON ?? (windows ? "python" : "python3");
  const version = spawnSync(python, ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"], { encoding: "utf8" });
  if (version.status !== 0) {
    throw new Error(`Python 3.11 or newer is needed and "${python}" did not run. Install it, or name it by PYTHON=…`);
  }
  const [major, minor] = version.stdout.trim().split(".").map(Number);
  if (major < 3 || minor < 11) {
    throw new Error(
      `Python 3.11 or newer is needed, "${python}" is ${version.stdout.trim()}. Name another by PYTHON=…`,
    );
  }
  console.log(`venv: making ${venv} with Python ${version.stdout.trim()}`);
  rmSync(venv, { recursive: true, force: true });
  run(python, ["-m", "venv", venv], "On Debian and Ubuntu: apt-get install python3-venv");
}

const requirements = (purpose) => join(root, "scripts", "peers", `requirements-${purpose}.txt`);
const constraints = join(root, "scripts", "peers", "constraints.txt");
const marker = (purpose) => join(venv, `installed-${purpose}`);
const digest = (purpose) =>
  createHash("sha256")
    .update(readFileSync(requirements(purpose)))
    .update(readFileSync(constraints))
    .digest("hex");

function upToDate(purpose) {
  return (
    existsSync(bin("python")) &&
    existsSync(marker(purpose)) &&
    readFileSync(marker(purpose), "utf8") === digest(purpose)
  );
}

/** Only one process installs at a time; a lock whose owner is gone is taken over. */
async function acquire() {
  mkdirSync(join(root, ".cache"), { recursive: true });
  for (let waited = 0; ; waited++) {
    try {
      mkdirSync(lock);
      writeFileSync(join(lock, "pid"), String(process.pid));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (!alive()) {
      rmSync(lock, { recursive: true, force: true });
      continue;
    }
    if (waited === 0) console.log("venv: another process is installing; waiting for it");
    if (waited > 1800) throw new Error(`${lock} is still held after 30 minutes. Remove it if nothing is installing.`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function alive() {
  try {
    process.kill(Number(readFileSync(join(lock, "pid"), "utf8")), 0);
    return true;
  } catch (error) {
    // ENOENT: the owner has just made the folder and not yet written its id.
    return error.code === "EPERM" || error.code === "ENOENT";
  }
}

function run(command, args, hint = "") {
  const { status, error } = spawnSync(command, args, { stdio: ["ignore", "inherit", "inherit"], cwd: root });
  if (status === 0) return;
  throw new Error(`"${command} ${args.join(" ")}" ${error ? error.message : `ended with code ${status}`}. ${hint}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const purposes = process.argv.slice(2);
  const unknown = purposes.find((purpose) => !existsSync(requirements(purpose)));
  if (purposes.length === 0 || unknown !== undefined) {
    console.error("usage: node scripts/venv.mjs jupyter|peers …");
    process.exit(2);
  }
  try {
    console.log(`venv: ready in ${await ensureVenv(...purposes)}`);
  } catch (error) {
    console.error(`venv: ${error.message}`);
    process.exit(1);
  }
}
