/** The front end's user has ended the input instead of giving a line (Ctrl-D on a terminal, or a dialog that was dismissed). */
export class EndOfInputError extends Error {
  override readonly name = "EndOfInputError";
  constructor() {
    super("The input was ended instead of answered.");
  }
}

type Ask = (prompt: string) => Promise<string>;

/** A line, or `fallback` for an empty one; null where the input was ended. */
export async function prompt(ask: Ask, message: string, fallback?: string): Promise<string | null> {
  const shown = fallback === undefined || fallback === "" ? `${message} ` : `${message} [${fallback}] `;
  try {
    const line = await ask(shown);
    return line === "" && fallback !== undefined ? fallback : line;
  } catch (error) {
    if (error instanceof EndOfInputError) return null;
    throw error;
  }
}

/** Yes or no; an empty line or the end of the input is no, anything else is asked again. */
export async function confirm(ask: Ask, message: string): Promise<boolean> {
  for (;;) {
    const line = await prompt(ask, `${message} [y/N]`);
    const answer = line?.trim().toLowerCase() ?? "";
    if (answer === "y" || answer === "yes") return true;
    if (answer === "" || answer === "n" || answer === "no") return false;
  }
}
