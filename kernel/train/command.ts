import type { Command } from "commander";
import { loadLibrary } from "../library.js";
import type { Job, Library, Run } from "./library.js";

interface TrainFlags {
  set: string[];
  resume?: boolean;
  dryRun?: boolean;
}

/** Exit code of a process that Ctrl-C ended. */
const INTERRUPTED = 130;

/** Adds `tunebook train`. */
export function addTrain(program: Command): void {
  program
    .command("train")
    .description("train as a JSON file says: its sections are model, quantize, addLora, data, train, evaluate, save")
    .argument("<config>", "a .json file")
    .option("--set <section.option=value>", "another value for an option; may be repeated", gather, [])
    .option("--resume", "go on where the newest checkpoint ends")
    .option("--dry-run", "say what would be done and how much memory a step would take, and end")
    .action(train);
}

const gather = (text: string, before: string[]): string[] => [...before, text];

async function train(file: string, flags: TrainFlags): Promise<void> {
  const { TrainJob } = await loadLibrary<Library>();
  const job = await TrainJob.fromFile(file, [...flags.set, ...(flags.resume ? ["train.resume=true"] : [])]);
  if (flags.dryRun) {
    console.log(await job.plan());
    return;
  }
  const again = ["tunebook train", file, ...flags.set.map((each) => `--set ${quoted(each)}`), "--resume"].join(" ");
  await untilInterrupted(job, again);
}

/** Runs a job. The first Ctrl-C ends it after the step and saves that; the second stops at once and saves what stands before the step. */
async function untilInterrupted(job: Job, again: string): Promise<void> {
  const control = new AbortController();
  let run: Run | undefined;
  let asked = 0;
  const interrupt = (): void => {
    asked++;
    if (asked === 1 && run?.over === false) {
      run.stop();
      console.error("\nStopping after this step. Ctrl-C again stops at once.");
    } else if (asked <= 2) control.abort();
    else process.exit(INTERRUPTED);
  };
  process.on("SIGINT", interrupt);
  try {
    const { training } = await job.run({
      signal: control.signal,
      onRun: (started) => {
        run = started;
      },
      say: (text) => console.log(text),
    });
    if (training.ended !== "stopped") return;
    const { checkpoint, steps } = training;
    console.error(
      checkpoint === undefined
        ? `Stopped after step ${steps}, before anything was saved.`
        : `Stopped after step ${steps}; saved in ${checkpoint.folder}. To go on: ${again}`,
    );
    process.exitCode = INTERRUPTED;
  } catch (error) {
    if (asked === 0) throw error;
    // The library's words are for a program, where something is saved to go on from.
    console.error((error as Error).message.replace(/: the same call with resume: true.*$/s, `. To go on: ${again}`));
    process.exitCode = INTERRUPTED;
  } finally {
    process.off("SIGINT", interrupt);
  }
}

/** An argument as a shell takes it. */
const quoted = (text: string): string => (/^[\w.,:=/@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
