#!/usr/bin/env node
// The `tunebook` command.
import { Command, InvalidArgumentError, Option } from "commander";
import { addChat } from "./chat/command.js";
import { diagnose, formatFindings } from "./doctor.js";
import { type InstallOptions, installKernel, KERNEL_NAME, type Place, uninstallKernel } from "./install.js";
import { joinParameters, type Parameter, parseParameter, readParameters } from "./parameters.js";
import { VERSION } from "./protocol/info.js";
import { runNotebook } from "./run.js";
import type { ServerOptions } from "./run-server.js";
import { addTrain } from "./train/command.js";

interface PlaceOptions {
  user?: boolean;
  sysPrefix?: boolean;
  prefix?: string;
  name: string;
}

interface RunFlags {
  output?: string;
  parameter: Parameter[];
  parameterRaw: Parameter[];
  parametersFile?: string;
  server?: string;
  token?: string;
  kernel?: string;
  serverFolder?: string;
  timeout?: number;
  allowErrors?: boolean;
}

const program = new Command("tunebook")
  .description("A Jupyter kernel in TypeScript that fine-tunes language models")
  .version(VERSION)
  .showHelpAfterError();

const withPlace = (command: Command): Command =>
  command
    .option("--user", "for the current user (default)")
    .option("--sys-prefix", "for the active Python environment")
    .option("--prefix <dir>", "under DIR/share/jupyter")
    .option("--name <name>", "name of the kernelspec", KERNEL_NAME);

withPlace(program.command("install").description("make the kernel known to Jupyter"))
  .option("--display-name <text>", "what front ends show")
  .addOption(
    new Option("--typecheck <mode>", "how cells are checked until one says %typecheck").choices([
      "error",
      "warn",
      "off",
    ]),
  )
  .action(async (options: PlaceOptions & InstallOptions) => {
    const folder = await installKernel(place(options) ?? { kind: "user" }, options);
    console.log(`The kernel "${options.name}" is installed in ${folder}`);
  });

withPlace(program.command("uninstall").description("take the kernel away from Jupyter")).action(
  (options: PlaceOptions) => {
    const chosen = place(options);
    const removed = uninstallKernel(chosen === undefined ? [{ kind: "user" }] : [chosen], options.name);
    if (removed.length === 0) throw new Error(`No kernelspec "${options.name}" of tunebook was found there.`);
    for (const folder of removed) console.log(`Removed ${folder}`);
  },
);

program
  .command("doctor")
  .description("what this machine has, what is missing, and how to get it")
  .action(() => {
    const findings = diagnose();
    process.stdout.write(formatFindings(findings));
    if (findings.some(({ state }) => state === "missing")) process.exitCode = 1;
  });

program
  .command("run")
  .description("execute every cell of a notebook and write it with its outputs")
  .argument("<notebook>", "an .ipynb file")
  .option("-o, --output <file>", "where the executed notebook goes (default: beside it, .out.ipynb)")
  .option(
    "-p, --parameter <name=value>",
    "set a parameter (also: -p NAME VALUE); may be repeated",
    parameter(false),
    [],
  )
  .option("-r, --parameter-raw <name=value>", "the same with a value that stays text", parameter(true), [])
  .option("-f, --parameters-file <file>", "parameters from a YAML or JSON file; -p and -r override them")
  .option("--server <url>", "run on this Jupyter server; the notebook is read and written here")
  .option("--token <token>", "the server's token; better given by the variable JUPYTER_TOKEN, or inside the URL")
  .option("--kernel <name>", "the kernel on the server")
  .option("--server-folder <folder>", "the folder below the server's root that the kernel starts in")
  .option("--timeout <seconds>", "the most that one cell may take", positive)
  .option("--allow-errors", "go on after a failed cell")
  .action(async (notebook: string, flags: RunFlags) => {
    const interrupt = new AbortController();
    // The first Ctrl-C stops the cell and still writes the notebook; the second ends the command.
    process.once("SIGINT", () => interrupt.abort());
    const fromFile = flags.parametersFile === undefined ? [] : await readParameters(flags.parametersFile);
    const server = serverOf(flags);
    const report = await runNotebook(notebook, {
      parameters: [...fromFile, ...flags.parameter, ...flags.parameterRaw],
      ...(server === undefined ? {} : { server }),
      progress: process.stderr,
      signal: interrupt.signal,
      ...(flags.output === undefined ? {} : { output: flags.output }),
      ...(flags.timeout === undefined ? {} : { timeout: flags.timeout }),
      ...(flags.allowErrors === undefined ? {} : { allowErrors: flags.allowErrors }),
    });
    const { failure } = report;
    if (failure !== undefined) {
      process.exitCode = 1;
      const source = failure.source.split("\n").map((line) => `  | ${line}`);
      const trace = failure.traceback.length > 0 ? failure.traceback : [`${failure.ename}: ${failure.evalue}`];
      if (failure.ename === "CellTimeout") trace.unshift(`CellTimeout: ${failure.evalue}`);
      console.error([`\nCell ${failure.index} failed:`, ...source, "", ...trace, ""].join("\n"));
    }
    console.error(`${report.executed} cells in ${report.seconds.toFixed(1)} s; written to ${report.output}`);
  });

addChat(program);
addTrain(program);

function place({ user, sysPrefix, prefix }: PlaceOptions): Place | undefined {
  if ([user, sysPrefix, prefix].filter(Boolean).length > 1) {
    throw new Error("Give one of --user, --sys-prefix and --prefix DIR.");
  }
  if (prefix !== undefined) return { kind: "prefix", folder: prefix };
  if (sysPrefix) return { kind: "sys-prefix" };
  return user ? { kind: "user" } : undefined;
}

function parameter(raw: boolean): (text: string, before: Parameter[]) => Parameter[] {
  return (text, before) => {
    try {
      return [...before, parseParameter(text, raw)];
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };
}

function serverOf({ server, token, kernel, serverFolder }: RunFlags): ServerOptions | undefined {
  if (server === undefined) {
    if ([token, kernel, serverFolder].every((flag) => flag === undefined)) return undefined;
    throw new Error("--token, --kernel and --server-folder go with --server URL.");
  }
  return {
    url: server,
    ...(token === undefined ? {} : { token }),
    ...(kernel === undefined ? {} : { kernel }),
    ...(serverFolder === undefined ? {} : { folder: serverFolder }),
  };
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError("expected a number of seconds above 0.");
  return number;
}

try {
  await program.parseAsync(joinParameters(process.argv));
} catch (error) {
  const { name, message } = error as Error;
  console.error(`tunebook: ${name === "Error" ? "" : `${name}: `}${message}`);
  process.exitCode = 1;
}
