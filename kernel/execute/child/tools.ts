import type { Scope } from "../../compile/scope.js";
import type { Cell } from "./cell.js";
import { type Activation, contexts } from "./context.js";
import { doMagic } from "./magics/index.js";
import { startTimer, timeIt } from "./magics/time.js";
import type { Port } from "./port.js";
import { shellFor } from "./sh.js";

/** Runs code of a file under a cell. */
export type RunCode = (cell: Cell, code: string, file: string, folder: string) => Promise<unknown>;

interface Parts {
  scope: Scope;
  folder: string;
  port: Port;
  runCode: RunCode;
}

/** What compiled cells call: magics, measurements, the account of whose work runs; and `sh`. */
export interface Tools {
  enter(): Activation;
  magic(name: string, texts: string[], values: unknown[], body?: string): Promise<void>;
  time(): <T>(value?: T) => T | undefined;
  timeit(body: () => unknown, waits: boolean, loops?: number, runs?: number): Promise<void>;
  sh: ReturnType<typeof shellFor>;
}

/** The tools of one cell; what its functions do when another cell calls them is that cell's. */
export function toolsOf(cell: Cell, { scope, folder, port, runCode }: Parts): Tools {
  const here = (): Cell => contexts.now ?? cell;
  return {
    enter: () => contexts.enter(),
    magic: (name, texts, values, body = "") => {
      const host = {
        cell,
        folder,
        scope,
        runCode: (code: string, file: string, from: string) => runCode(cell, code, file, from),
        packagesChanged: () => port.post({ type: "packages" }),
      };
      return doMagic(host, { name, texts, values, body });
    },
    time: () => startTimer(cell),
    timeit: (body, waits, loops, runs) => timeIt(cell, body, waits, loops, runs),
    sh: shellFor(here),
  };
}
