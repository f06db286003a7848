/** Where a run is saved, and where it goes on from. */
import { dirname, resolve } from "node:path";
import type { Example } from "../data/mask.js";
import type { CausalLM } from "../models/causal.js";
import { type Checkpoint, findCheckpoint } from "./checkpoint-files.js";
import { type RunState, readState } from "./checkpoint-state.js";
import { Checkpoints } from "./checkpoints.js";
import {
  dataFingerprint,
  type Fingerprint,
  machineFingerprint,
  modelFingerprint,
  optionsFingerprint,
  requireEqual,
} from "./fingerprint.js";
import type { TrainSettings } from "./options.js";
import type { Trained } from "./run.js";

/** The saving side of a run. Without `output` and `resume` it does nothing. */
export class RunSaving {
  /** What is to be said of a resumed run; "" otherwise. */
  note = "";
  private readonly settings: TrainSettings;
  private readonly network: CausalLM;
  private readonly model: Trained;
  private fingerprint: Fingerprint = {};
  private resumed: { folder: string; state: RunState } | undefined;
  private found: Checkpoint | undefined;
  private damaged: ReadonlyMap<string, string> = new Map();

  private constructor(settings: TrainSettings, network: CausalLM, model: Trained) {
    this.settings = settings;
    this.network = network;
    this.model = model;
  }

  /**
   * Looks for the checkpoint to go on from and compares options and model with it, before anything else is done.
   *
   * @throws CheckpointError when there is none that can be used; ConfigError naming what differs.
   */
  static async open(settings: TrainSettings, network: CausalLM, model: Trained): Promise<RunSaving> {
    const saving = new RunSaving(settings, network, model);
    if (saving.active) await saving.prepare();
    return saving;
  }

  private get active(): boolean {
    return this.settings.output !== undefined || Boolean(this.settings.resume);
  }

  private async prepare(): Promise<void> {
    const { resume, output } = this.settings;
    const found = resume ? await findCheckpoint(resume, output) : undefined;
    const state = found && (await readState(found.checkpoint.folder));
    this.fingerprint = {
      ...optionsFingerprint(this.settings),
      ...(await modelFingerprint(this.network, this.model.adapterSettings())),
    };
    if (!found || !state) return;
    const { checkpoint, damaged } = found;
    requireEqual(checkpoint.folder, state.fingerprint, this.fingerprint, false);
    this.found = checkpoint;
    this.damaged = damaged;
    this.resumed = { folder: checkpoint.folder, state };
    const machine = machineFingerprint(this.network.device);
    this.note = [
      `from step ${state.step}`,
      ...[...damaged].map(([folder, wrong]) => `${folder} is damaged (${wrong}), so an older checkpoint is used`),
      ...(state.machine === machine
        ? []
        : [`saved with ${state.machine}, now ${machine}: not the same to the last bit`]),
    ].join("; ");
  }

  /** Compares the rows too. @throws ConfigError naming what differs. */
  join(
    train: readonly Example[],
    validation: readonly Example[] | undefined,
  ): {
    identity: Pick<RunState, "fingerprint" | "machine"> | undefined;
    resumed: { folder: string; state: RunState } | undefined;
  } {
    if (!this.active) return { identity: undefined, resumed: undefined };
    Object.assign(this.fingerprint, dataFingerprint("training", train), dataFingerprint("validation", validation));
    if (this.resumed) requireEqual(this.resumed.folder, this.resumed.state.fingerprint, this.fingerprint, true);
    const identity = { fingerprint: this.fingerprint, machine: machineFingerprint(this.network.device) };
    return { identity, resumed: this.resumed };
  }

  /** Saves the run every so many steps; `undefined` without `output`, or with `saveEvery: 0`. */
  checkpoints(every: number, onChange: () => void): Checkpoints | undefined {
    const { output, saveEvery } = this.settings;
    if (output === undefined || saveEvery === 0) return undefined;
    const made = new Checkpoints({
      output,
      every,
      saveAdapter: this.model.adapterSettings() ? (folder) => this.model.saveTrained(folder) : undefined,
      damaged: this.damaged.keys(),
      onChange,
    });
    if (this.found && dirname(resolve(this.found.folder)) === resolve(output)) made.last = this.found;
    return made;
  }
}
