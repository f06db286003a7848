/** A magic of a cell, with offsets in the cell's text. */
export type Directive =
  | {
      /** Done by the executor, where it stands. */
      kind: "call";
      name: string;
      start: number;
      end: number;
      /** The text of its line around interpolated expressions, so one more than there are of these. */
      texts: string[];
      /** The rest of the cell, of a magic in its cell form. */
      body?: string;
    }
  | {
      /** Measures the statements that begin between `start` and `end`. */
      kind: "time";
      start: number;
      end: number;
    }
  | { kind: "timeit"; start: number; end: number; loops?: number; runs?: number };
