import type { Json } from "./message.js";

interface Entry {
  line: number;
  input: string;
  output: string | undefined;
}

const SESSION = 1;

/** What was executed in this session, and the answers to `history_request`. */
export class History {
  readonly #entries: Entry[] = [];

  add(line: number, input: string, output: string | undefined): void {
    this.#entries.push({ line, input, output });
  }

  /** The content of a `history_reply`: tail, range or search. */
  answer(request: Json): Json {
    const chosen = this.#choose(request);
    const withOutput = request.output === true;
    const history = chosen.map(({ line, input, output }) => [
      SESSION,
      line,
      withOutput ? [input, output ?? null] : input,
    ]);
    return { status: "ok", history };
  }

  #choose(request: Json): Entry[] {
    const n = typeof request.n === "number" ? Math.max(0, Math.floor(request.n)) : undefined;
    const last = (entries: Entry[]): Entry[] => (n === undefined ? entries : n === 0 ? [] : entries.slice(-n));
    switch (request.hist_access_type) {
      case "range": {
        const session = typeof request.session === "number" ? request.session : 0;
        if (session !== 0 && session !== SESSION) return [];
        const start = typeof request.start === "number" ? request.start : 0;
        const stop = typeof request.stop === "number" ? request.stop : Number.POSITIVE_INFINITY;
        return this.#entries.filter(({ line }) => line >= start && line < stop);
      }
      case "search": {
        const pattern = glob(typeof request.pattern === "string" ? request.pattern : "*");
        let found = this.#entries.filter(({ input }) => pattern(input));
        // Of equal inputs the newest counts.
        if (request.unique === true) found = [...new Map(found.map((one) => [one.input, one])).values()];
        return last(found);
      }
      default:
        return last(this.#entries);
    }
  }
}

// `*` and `?` as in SQLite's GLOB, without regular expressions: a pattern from outside cannot be made to explode.
function glob(pattern: string): (text: string) => boolean {
  return (text) => {
    let p = 0;
    let t = 0;
    let star = -1;
    let resume = 0;
    while (t < text.length) {
      if (pattern[p] === "*") {
        star = p++;
        resume = t;
      } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === text[t])) {
        p++;
        t++;
      } else if (star >= 0) {
        p = star + 1;
        t = ++resume;
      } else return false;
    }
    while (pattern[p] === "*") p++;
    return p === pattern.length;
  };
}
