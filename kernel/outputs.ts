import type { CellOutput, NotebookCell } from "./notebook.js";
import type { Json } from "./protocol/message.js";
import type { Published } from "./run-kernel.js";

/**
 * Turns the IOPub messages of running cells into the outputs that nbformat stores: stream text put together, updates
 * applied to every earlier output of their display id, clear_output (waiting or not) obeyed.
 */
export class OutputRecorder {
  readonly #displays = new Map<string, Set<CellOutput>>();
  readonly #clearing = new Set<NotebookCell>();

  /** Takes a message that belongs to a cell. */
  record(cell: NotebookCell, message: Published): void {
    const content = message.content;
    switch (message.header.msg_type) {
      case "stream":
        this.#stream(cell, String(content.name), String(content.text));
        break;
      case "display_data":
        this.#add(cell, { output_type: "display_data", ...bundle(content) }, displayId(content));
        break;
      case "execute_result": {
        const execution_count = content.execution_count;
        const output = { output_type: "execute_result", execution_count, ...bundle(content) };
        this.#add(cell, output, displayId(content));
        break;
      }
      case "update_display_data":
        for (const output of this.#displays.get(displayId(content) ?? "") ?? []) Object.assign(output, bundle(content));
        break;
      case "error": {
        const { ename, evalue, traceback } = content;
        this.#add(cell, { output_type: "error", ename, evalue, traceback });
        break;
      }
      case "clear_output":
        if (content.wait === true) this.#clearing.add(cell);
        else cell.outputs = [];
        break;
      case "execute_input":
        cell.execution_count = content.execution_count as number;
        break;
    }
  }

  #stream(cell: NotebookCell, name: string, text: string): void {
    this.#clear(cell);
    const last = cell.outputs?.at(-1);
    if (last?.output_type === "stream" && last.name === name) last.text = overprinted(`${last.text}${text}`);
    else this.#add(cell, { output_type: "stream", name, text: overprinted(text) });
  }

  #add(cell: NotebookCell, output: CellOutput, id?: string): void {
    this.#clear(cell);
    cell.outputs ??= [];
    cell.outputs.push(output);
    if (id === undefined) return;
    const known = this.#displays.get(id);
    if (known === undefined) this.#displays.set(id, new Set([output]));
    else known.add(output);
  }

  #clear(cell: NotebookCell): void {
    if (this.#clearing.delete(cell)) cell.outputs = [];
  }
}

function bundle(content: Json): { data: unknown; metadata: unknown } {
  return { data: content.data ?? {}, metadata: content.metadata ?? {} };
}

function displayId(content: Json): string | undefined {
  const id = (content.transient as Json | undefined)?.display_id;
  return typeof id === "string" ? id : undefined;
}

// A carriage return starts the line again, as in a terminal; progress lines would pile up otherwise.
function overprinted(text: string): string {
  if (!text.includes("\r")) return text;
  return text
    .replace(/\r+\n/g, "\n")
    .split("\n")
    .map((line) => {
      const end = line.endsWith("\r") ? "\r" : "";
      return line.replace(/\r$/, "").split("\r").at(-1)! + end;
    })
    .join("\n");
}
