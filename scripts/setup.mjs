// Gets a clone ready: checks the tools, installs the packages, builds. Safe to run again at any time:
// what is up to date is left alone. Needs no installed package itself.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Checks Node and the compiler, installs the packages and builds; throws with the remedy. */
export function setup() {
  checkNode();
  checkCompiler();
  installPackages();
  step("building the native addon and the TypeScript sources");
  run(process.execPath, [join("scripts", "build.mjs")], "The message above says what did not compile.");
}

/** Prints one line of progress; every line of these scripts begins alike, so that it can be found in a log. */
export function step(text) {
  console.log(`==> ${text}`);
}

/** Runs a program in the repository's root, its output passed through; throws unless it ends with code 0. */
export function run(command, args, remedy = "", options = {}) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    ...options,
  });
  if (status === 0) return;
  const reason = error ? error.message : signal ? `was ended by ${signal}` : `ended with code ${status}`;
  throw new Error(`"${[command, ...args].join(" ")}" ${reason}. ${remedy}`);
}

/** Runs a program of npm's: the very npm that started this script where there is one. */
export function npm(args, remedy) {
  const own = process.env.npm_execpath;
  if (own !== undefined && /\.[cm]?js$/.test(own)) run(process.execPath, [own, ...args], remedy);
  else run(process.platform === "win32" ? "npm.cmd" : "npm", args, remedy);
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Error(
    `Node 20.19 or newer is needed, this is ${process.version}. Get it from your system's packages or a version manager (nvm, fnm, volta).`,
  );
}

function checkCompiler() {
  const named = process.env.CXX;
  const candidates = named ? [named] : ["g++", "c++", "clang++"];
  for (const name of candidates) {
    const [program, ...args] = name.split(/\s+/);
    if (spawnSync(program, [...args, "--version"], { stdio: "ignore" }).status === 0) return;
  }
  throw new Error(
    `A C++ compiler is needed and none of ${candidates.join(", ")} runs. On Debian and Ubuntu: apt-get install g++; ` +
      "on Fedora: dnf install gcc-c++; on macOS: xcode-select --install. Another compiler can be named by CXX=….",
  );
}

function installPackages() {
  if (packagesCurrent()) return;
  step("installing the packages of package-lock.json (npm ci)");
  npm(["ci", "--no-audit", "--no-fund"], "The registry must be reachable for the first installation.");
}

/** Whether node_modules holds what the lock file names, by npm's own record of what it installed. */
function packagesCurrent() {
  const record = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, "utf8")).packages;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const same = (path) => installed[path]?.version === wanted[path]?.version;
  return (
    Object.keys(installed).every(same) &&
    // Optional packages of other platforms are in the lock file and rightly not installed.
    Object.keys(wanted).every((path) => path === "" || wanted[path].optional || wanted[path].devOptional || same(path))
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  try {
    setup();
    step("ready");
  } catch (error) {
    console.error(`setup: ${error.message}`);
    process.exit(1);
  }
}
