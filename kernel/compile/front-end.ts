// Declarations of what cells have to talk to front ends with.

export const inputDeclarations: string = `
/** Asks the user for a line, which may have a default; null where the input was ended instead of answered. */
declare function prompt(message?: string, fallback?: string): Promise<string | null>;
/** Asks the user a question whose answer is yes or no. */
declare function confirm(message?: string): Promise<boolean>;
`;

export const commDeclarations: string = `
/** What came with a comm's message: JSON, and raw bytes in the order of the message's frames. */
interface JupyterCommMessage {
  data: Record<string, any>;
  metadata: Record<string, any>;
  buffers: Uint8Array[];
}
interface JupyterCommOptions {
  metadata?: object;
  /** Sent as raw frames. */
  buffers?: readonly (ArrayBufferView | ArrayBuffer | SharedArrayBuffer)[];
}
/** The kernel's end of a comm: a line to one object of the front end, such as a widget. */
interface JupyterComm {
  readonly id: string;
  readonly target: string;
  readonly closed: boolean;
  /** Sends a message to the front end; \`data\` must be JSON. */
  send(data?: object, options?: JupyterCommOptions): void;
  /** Closes the comm; the front end is told. */
  close(data?: object, options?: JupyterCommOptions): void;
  /** Calls back for every message of the front end; returns a function that ends it. */
  onMessage(handler: (message: JupyterCommMessage) => unknown): () => void;
  /** Calls back when the front end closes the comm. */
  onClose(handler: (message: JupyterCommMessage) => unknown): () => void;
}
interface JupyterComms {
  /** Takes the comms that front ends open to this target; returns a function that ends it. */
  register(target: string, opened: (comm: JupyterComm, open: JupyterCommMessage) => unknown): () => void;
  /** Opens a comm to a target of the front end. */
  open(target: string, data?: object, options?: JupyterCommOptions & { id?: string }): JupyterComm;
  /** The comms that are open. */
  list(): JupyterComm[];
}
/** Comms: messages to and from objects of the front end, with JSON and binary buffers. */
declare const comms: JupyterComms;
`;
