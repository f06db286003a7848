import { ShellError } from "../sh.js";
import { runProgram, shellCommand, shellProgram } from "../shell.js";
import { argumentsOf, type Implementation } from "./host.js";

/** What is kept of a script's output for its error. */
const KEPT = 4_000;
/** A longer script does not fit into one argument of a program (128 KiB on Linux). */
const MAX_ARGUMENT = 120_000;

/** `!command`: another exit code than 0 is told and fails nothing. */
export const command: Implementation = async ({ cell }, { texts, values }) => {
  const text = shellCommand(texts, values).trim();
  const { code, signal } = await runProgram(shellProgram(), ["-c", text], {
    signal: cell.signal(),
    keep: 0,
    onText: (name, piece) => cell.print(name, piece),
  });
  if (signal !== undefined) cell.print("stderr", `[ended by ${signal}]\n`);
  else if (code !== 0) cell.print("stderr", `[exit code ${code}]\n`);
  if (/^cd(?:\s[^;&|]*)?$/.test(text)) {
    cell.print("stderr", "A command's own folder ends with it; %cd changes the notebook's.\n");
  }
};

/** `%%bash` and `%%sh`: a failing script fails the cell, so that those after it do not build on it. */
export const script: Implementation = async ({ cell }, call) => {
  const { name, body } = call;
  const given = argumentsOf(call);
  const program = name === "sh" ? "/bin/sh" : "bash";
  const long = Buffer.byteLength(body) > MAX_ARGUMENT;
  const args = long ? ["-s", "--", ...given] : ["-c", body, name, ...given];
  try {
    const ended = await runProgram(program, args, {
      signal: cell.signal(),
      input: long ? body : undefined,
      keep: KEPT,
      onText: (stream, piece) => cell.print(stream, piece),
    });
    // The output stands in the cell already.
    if (ended.code !== 0) throw new ShellError(`%%${name}`, { ...ended, stdout: "", stderr: "" });
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT")
      throw new Error(`%%${name}: there is no ${program} on this machine. Try %%sh.`);
    throw error;
  }
};
