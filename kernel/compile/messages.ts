import type { CompileRequest, Diagnostic } from "./types.js";

/** What the kernel process asks of the compile worker. */
export type Call =
  | { type: "compile"; request: CompileRequest }
  | { type: "complete"; code: string; cursor: number }
  | { type: "inspect"; code: string; cursor: number; detail: 0 | 1 }
  | { type: "isComplete"; code: string }
  | { type: "transpile"; path: string; text: string };

export type Request = Call & { id: number };

/** What it tells it, without an answer. */
export type Notice =
  | { type: "commit"; cell: string }
  | { type: "reset" }
  | { type: "packages" }
  | { type: "restore"; cells: { code: string; cell: string; cwd: string }[] };

export type Answer =
  | { id: number; value: unknown }
  | { id: number; error: { name: string; message: string; stack?: string }; diagnostics?: Diagnostic[] };
