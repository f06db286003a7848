import { existsSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import type { Cell } from "../cell.js";
import { runProgram } from "../shell.js";
import { native } from "../timers.js";
import { argumentsOf, type Implementation, UsageError } from "./host.js";

const changing = new Set([
  "install",
  "i",
  "add",
  "uninstall",
  "remove",
  "rm",
  "un",
  "update",
  "up",
  "ci",
  "link",
  "dedupe",
]);
const TICK_MS = 250;
const KEPT = 8_000;

/** The folder whose package.json counts for a notebook; made where there is none up to the home folder. */
function packageFolder(notebook: string, cell: Cell): string {
  for (let folder = notebook; folder !== dirname(folder) && folder !== homedir(); folder = dirname(folder)) {
    if (existsSync(join(folder, "package.json"))) return folder;
  }
  writeFileSync(join(notebook, "package.json"), `${JSON.stringify({ private: true }, null, 2)}\n`, { flag: "wx" });
  cell.print("stdout", `Made ${join(notebook, "package.json")}\n`);
  return notebook;
}

/** npm itself: the one that came with this Node, else the one on the path. */
function npmProgram(): { file: string; args: string[] } {
  const own = join(dirname(dirname(process.execPath)), "lib", "node_modules", "npm", "bin", "npm-cli.js");
  return existsSync(own) ? { file: process.execPath, args: [own] } : { file: "npm", args: [] };
}

export const npm: Implementation = async (host, call) => {
  const { cell } = host;
  const given = argumentsOf(call);
  const [command] = given;
  if (command === undefined) throw new UsageError("npm", "What is npm to do?");
  const changes = changing.has(command);
  const cwd = changes ? packageFolder(host.folder, cell) : host.folder;
  const { file, args } = npmProgram();
  const quiet = changes ? ["--no-fund", "--no-audit", "--no-update-notifier", "--loglevel=http", "--no-progress"] : [];
  const progress = changes ? new Progress(cell, `npm ${given.join(" ")}`) : undefined;
  try {
    const { code } = await runProgram(file, [...args, ...given, ...quiet], {
      cwd,
      signal: cell.signal(),
      keep: KEPT,
      onText: (name, text) => {
        if (progress) progress.take(name, text);
        else cell.print(name, text);
      },
    });
    progress?.end(code === 0);
    if (code !== 0) throw new Error(`npm ${command} ended with exit code ${code}; what it says stands above.`);
  } catch (error) {
    progress?.end(false);
    if ((error as { code?: unknown }).code === "ENOENT")
      throw new Error("There is no npm on this machine's path; it comes with Node.");
    throw error;
  } finally {
    if (changes) host.packagesChanged();
  }
};

/** One line that lives while npm works: how long, and how much it has fetched. The rest of its output is passed on. */
class Progress {
  readonly #cell: Cell;
  readonly #title: string;
  readonly #id = `tunebook-npm-${process.pid}-${Date.now()}`;
  readonly #started = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #fetched = 0;
  #rest = "";
  #shown = false;

  constructor(cell: Cell, title: string) {
    this.#cell = cell;
    this.#title = title;
    this.#show("…");
    this.#tick();
  }

  take(name: "stdout" | "stderr", text: string): void {
    if (name === "stdout") {
      this.#cell.print(name, text);
      return;
    }
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.#line(line);
  }

  end(ok: boolean): void {
    if (this.#timer === undefined) return;
    native.clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#rest !== "") this.#line(this.#rest);
    this.#show(ok ? "done" : "failed");
  }

  #line(line: string): void {
    if (/^npm http (?:fetch|cache) /.test(line)) this.#fetched++;
    else if (line.trim() !== "") this.#cell.print("stderr", `${line}\n`);
  }

  #tick(): void {
    this.#timer = native.setTimeout(() => {
      this.#show("…");
      this.#tick();
    }, TICK_MS);
  }

  #show(state: string): void {
    const seconds = ((performance.now() - this.#started) / 1_000).toFixed(1);
    const requests = this.#fetched === 0 ? "" : `, ${this.#fetched} ${this.#fetched === 1 ? "request" : "requests"}`;
    const text = `${this.#title}: ${state} ${seconds} s${requests}`;
    this.#cell.publish({ "text/plain": text }, { id: this.#id, update: this.#shown });
    this.#shown = true;
  }
}
