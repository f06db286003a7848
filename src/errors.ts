/** Every error of the library: the message says what was expected, what came, where, and what to do. */
export class TunebookError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Shapes, ranks or dtypes that do not fit an operation. */
export class ShapeError extends TunebookError {}
/** A device or its backend is missing, or an operation failed on it. */
export class DeviceError extends TunebookError {
  /** Whether the device cannot be used by this process any more: every later call fails with the same words until the process is started again. */
  readonly lost: boolean;

  constructor(message: string, options?: ErrorOptions & { lost?: boolean }) {
    super(message, options);
    this.lost = options?.lost === true;
  }
}
/** A device's or the process's memory is exhausted. */
export class OutOfMemoryError extends DeviceError {}
/** A file of weights, an adapter or a checkpoint is missing, damaged or does not fit. */
export class CheckpointError extends TunebookError {}
/** A data set, a row or a label cannot be used. */
export class DataError extends TunebookError {}
/** A tokenizer or a chat template is missing or cannot be used. */
export class TokenizerError extends TunebookError {}
/** An option, or a model's config, has a value that cannot be used. */
export class ConfigError extends TunebookError {}
/** A call came at the wrong moment: the message names the order that works. */
export class StateError extends TunebookError {}
/** The work was interrupted by the user or by an AbortSignal. */
export class InterruptedError extends TunebookError {}
