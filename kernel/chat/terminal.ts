import { createInterface, type Interface } from "node:readline";
import type { Conversation } from "./conversation.js";

/** Where a chat is typed and shown. */
export interface Terminal {
  input: NodeJS.ReadableStream;
  output: NodeJS.WritableStream;
  /** Whether colours may be used. */
  colors?: boolean;
}

const HELP = `/image FILE  shows a picture with the next question (models that see)
/reset       forgets what was said
/exit        leaves, as Ctrl-D does
/help        this list
A line that ends in \\ goes on in the next one. Ctrl-C stops an answer; twice at an empty line leaves.
`;
const COMMANDS = ["/image", "/reset", "/exit", "/help"];
const LEAVE: unique symbol = Symbol("leave");

/** A chat, line by line, until it is left. */
export async function chatInTerminal(conversation: Conversation, { input, output, colors }: Terminal): Promise<void> {
  const dim = (text: string): string => (colors ? `\x1b[2m${text}\x1b[0m` : text);
  const bold = (text: string): string => (colors ? `\x1b[1m${text}\x1b[0m` : text);
  const completer = (line: string): [string[], string] => [
    COMMANDS.filter((name) => line !== "" && name.startsWith(line)),
    line,
  ];
  const lines = createInterface({ input, output, terminal: true, completer, historySize: 500 });
  let answering: AbortController | undefined;
  let leaving = false;
  const next = lineReader(lines);
  lines.on("SIGINT", () => {
    if (answering !== undefined) {
      answering.abort();
      return;
    }
    if (leaving && lines.line === "") {
      lines.close();
      return;
    }
    leaving = lines.line === "";
    if (leaving) output.write(`\n${dim("Ctrl-C again, Ctrl-D or /exit leaves.")}\n`);
    lines.write(null, { ctrl: true, name: "e" });
    lines.write(null, { ctrl: true, name: "u" });
    lines.prompt();
  });
  const ask = async (prompt: string): Promise<string | typeof LEAVE> => {
    lines.setPrompt(prompt);
    lines.prompt();
    const line = await next();
    leaving = false;
    return line;
  };
  const answer = async (text: string): Promise<void> => {
    const control = new AbortController();
    answering = control;
    try {
      let said = false;
      for await (const piece of conversation.ask(text, control.signal)) {
        said = true;
        output.write(piece);
      }
      output.write(said ? "\n\n" : `${dim("(no answer)")}\n\n`);
    } catch (error) {
      output.write(control.signal.aborted ? ` ${dim("(stopped)")}\n\n` : `${(error as Error).message}\n\n`);
    } finally {
      answering = undefined;
    }
  };
  try {
    for (;;) {
      let line = await ask(bold("> "));
      while (line !== LEAVE && line.endsWith("\\")) {
        const more = await ask(bold("… "));
        line = more === LEAVE ? LEAVE : `${line.slice(0, -1)}\n${more}`;
      }
      if (line === LEAVE) break;
      const text = line.trim();
      if (text === "") continue;
      if (!text.startsWith("/")) {
        await answer(text);
        continue;
      }
      const { say, leave } = obey(conversation, text);
      if (say !== undefined) output.write(`${dim(say.trimEnd())}\n`);
      if (leave) break;
    }
  } finally {
    lines.close();
    output.write("\n");
  }
}

/**
 * Gives one line after another, those too that were typed while nobody asked. Lines that come at once were pasted and are one text, up to one that
 * begins with "/".
 */
function lineReader(lines: Interface): () => Promise<string | typeof LEAVE> {
  const waiting: string[] = [];
  let wake = (): void => {};
  let closed = false;
  lines.on("line", (line) => {
    waiting.push(line);
    wake();
  });
  lines.on("close", () => {
    closed = true;
    wake();
  });
  return async () => {
    if (waiting.length === 0 && !closed)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    await new Promise((resolve) => setImmediate(resolve));
    if (waiting.length === 0) return LEAVE;
    const isCommand = (line: string): boolean => line.startsWith("/");
    const end = waiting.slice(1).findIndex(isCommand) + 1;
    const count = isCommand(waiting[0]!) ? 1 : end === 0 ? waiting.length : end;
    return waiting.splice(0, count).join("\n");
  };
}

/** Does what a line that begins with "/" says. */
function obey(conversation: Conversation, line: string): { say?: string; leave?: boolean } {
  const [, name = "", rest = ""] = /^(\/\S*)\s*(.*)$/s.exec(line) ?? [];
  switch (name) {
    case "/exit":
    case "/quit":
      return { leave: true };
    case "/help":
      return { say: HELP };
    case "/reset":
      conversation.reset();
      return { say: "Everything that was said is forgotten." };
    case "/image":
      return { say: shown(conversation, rest.trim()) };
    default:
      return { say: `There is no command ${name}; there are ${COMMANDS.join(", ")}.` };
  }
}

function shown(conversation: Conversation, file: string): string {
  if (file === "") return "Name a file: /image cat.png";
  try {
    conversation.show(file);
  } catch (error) {
    return (error as Error).message;
  }
  const count = conversation.images.length;
  return `The next question shows ${count === 1 ? "this picture" : `${count} pictures`}.`;
}
