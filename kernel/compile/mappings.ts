const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The `mappings` of a source map of one source, written from its beginning to its end. */
export class Mappings {
  /** As version 3 of the format has them. */
  text = "";
  private line = 0;
  private last: [column: number, oldLine: number, oldColumn: number] = [0, 0, 0];
  private fresh = true;

  /** Says where a place comes from; all count from 0, and places come in order. */
  add(line: number, column: number, oldLine: number, oldColumn: number): void {
    for (; this.line < line; this.line++) {
      this.text += ";";
      this.last[0] = 0;
      this.fresh = true;
    }
    const [lastColumn, lastLine, lastOldColumn] = this.last;
    const numbers = [column - lastColumn, 0, oldLine - lastLine, oldColumn - lastOldColumn];
    this.text += (this.fresh ? "" : ",") + numbers.map(digits).join("");
    this.last = [column, oldLine, oldColumn];
    this.fresh = false;
  }
}

/** A number in base 64, variable in length, its sign in the lowest bit. */
function digits(value: number): string {
  let left = value < 0 ? (-value << 1) | 1 : value << 1;
  let text = "";
  do {
    const digit = left & 31;
    left >>>= 5;
    text += DIGITS[left > 0 ? digit | 32 : digit];
  } while (left > 0);
  return text;
}
