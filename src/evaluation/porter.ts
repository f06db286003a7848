/**
 * The Porter stemmer (An algorithm for suffix stripping, Program 14.3, 1980) with the extensions of NLTK's `PorterStemmer`, which is what
 * rouge_score stems with. Published packages for JavaScript follow the paper or Porter's own later versions and differ from it on common words.
 */

/** Words that the rules would spoil: form, stem. */
const IRREGULAR: ReadonlyMap<string, string> = new Map([
  ["sky", "sky"],
  ["skies", "sky"],
  ["dying", "die"],
  ["lying", "lie"],
  ["tying", "tie"],
  ["news", "news"],
  ["inning", "inning"],
  ["innings", "inning"],
  ["outing", "outing"],
  ["outings", "outing"],
  ["canning", "canning"],
  ["cannings", "canning"],
  ["howe", "howe"],
  ["proceed", "proceed"],
  ["exceed", "exceed"],
  ["succeed", "succeed"],
]);

/** Suffix, its replacement, and the measure that the stem before it must exceed. The first suffix that fits decides. */
type Rule = readonly [suffix: string, replacement: string];

const STEP_2: readonly Rule[] = [
  ["ational", "ate"],
  ["tional", "tion"],
  ["enci", "ence"],
  ["anci", "ance"],
  ["izer", "ize"],
  ["bli", "ble"],
  ["alli", "al"],
  ["entli", "ent"],
  ["eli", "e"],
  ["ousli", "ous"],
  ["ization", "ize"],
  ["ation", "ate"],
  ["ator", "ate"],
  ["alism", "al"],
  ["iveness", "ive"],
  ["fulness", "ful"],
  ["ousness", "ous"],
  ["aliti", "al"],
  ["iviti", "ive"],
  ["biliti", "ble"],
  ["fulli", "ful"],
];

const STEP_3: readonly Rule[] = [
  ["icate", "ic"],
  ["ative", ""],
  ["alize", "al"],
  ["iciti", "ic"],
  ["ical", "ic"],
  ["ful", ""],
  ["ness", ""],
];

const STEP_4: readonly string[] = [
  ...["al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"],
  ...["ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"],
];

/** The stem of a lower-case word, as `nltk.PorterStemmer().stem(word)` gives it. */
export function porterStem(word: string): string {
  const irregular = IRREGULAR.get(word);
  if (irregular !== undefined) return irregular;
  if (word.length <= 2) return word;
  return doubleL(finalE(residue(adjectives(derivations(finalY(pastAndGerund(plural(word))))))));
}

/** One flag a letter: true for consonants. A y is a consonant at the beginning and after a vowel. */
function consonants(word: string): boolean[] {
  const flags: boolean[] = [];
  for (const [i, letter] of [...word].entries())
    flags.push(letter === "y" ? i === 0 || !flags[i - 1] : !"aeiou".includes(letter));
  return flags;
}

/** How often a consonant follows a vowel: the m of the paper's [C](VC){m}[V]. */
function measure(stem: string): number {
  const flags = consonants(stem);
  return flags.filter((consonant, i) => consonant && flags[i - 1] === false).length;
}

/** Ends consonant, vowel, consonant other than w, x, y; or is just a vowel and a consonant. */
function endsShort(word: string): boolean {
  const [third, second, last] = consonants(word).slice(-3);
  if (word.length === 2) return !third! && second!;
  return word.length > 2 && third! && !second! && last! && !"wxy".includes(word.at(-1)!);
}

function endsDouble(word: string): boolean {
  return word.length > 1 && word.at(-1) === word.at(-2) && consonants(word).at(-1)!;
}

// Step 1a
function plural(word: string): string {
  if (word.endsWith("ies")) return word.slice(0, word.length === 4 ? -1 : -2);
  if (word.endsWith("sses")) return word.slice(0, -2);
  return word.endsWith("s") && !word.endsWith("ss") ? word.slice(0, -1) : word;
}

// Step 1b
function pastAndGerund(word: string): string {
  if (word.endsWith("ied")) return word.slice(0, word.length === 4 ? -1 : -2);
  if (word.endsWith("eed")) return measure(word.slice(0, -3)) > 0 ? word.slice(0, -1) : word;
  const suffix = ["ed", "ing"].find(
    (s) => word.endsWith(s) && consonants(word.slice(0, -s.length)).some((consonant) => !consonant),
  );
  if (suffix === undefined) return word;
  const stem = word.slice(0, -suffix.length);
  if (/(?:at|bl|iz)$/.test(stem)) return `${stem}e`;
  if (endsDouble(stem)) return /[lsz]$/.test(stem) ? stem : stem.slice(0, -1);
  return measure(stem) === 1 && endsShort(stem) ? `${stem}e` : stem;
}

// Step 1c
function finalY(word: string): string {
  const consonantBefore = word.length > 2 && word.endsWith("y") && consonants(word).at(-2)!;
  return consonantBefore ? `${word.slice(0, -1)}i` : word;
}

// Step 2
function derivations(word: string): string {
  // "alli" may leave another ending of this step behind ("…ationalli").
  if (word.endsWith("alli") && measure(word.slice(0, -4)) > 0) return derivations(word.slice(0, -2));
  const rule = STEP_2.find(([suffix]) => word.endsWith(suffix));
  if (rule) return replaced(word, rule);
  return word.endsWith("logi") && measure(word.slice(0, -3)) > 0 ? word.slice(0, -1) : word;
}

// Step 3
function adjectives(word: string): string {
  const rule = STEP_3.find(([suffix]) => word.endsWith(suffix));
  return rule ? replaced(word, rule) : word;
}

function replaced(word: string, [suffix, replacement]: Rule): string {
  const stem = word.slice(0, -suffix.length);
  return measure(stem) > 0 ? stem + replacement : word;
}

// Step 4
function residue(word: string): string {
  const suffix = STEP_4.find((s) => word.endsWith(s));
  if (suffix === undefined) return word;
  const stem = word.slice(0, -suffix.length);
  return measure(stem) > 1 && (suffix !== "ion" || /[st]$/.test(stem)) ? stem : word;
}

// Step 5a
function finalE(word: string): string {
  if (!word.endsWith("e")) return word;
  const stem = word.slice(0, -1);
  const m = measure(stem);
  return m > 1 || (m === 1 && !endsShort(stem)) ? stem : word;
}

// Step 5b
function doubleL(word: string): string {
  return word.endsWith("ll") && measure(word.slice(0, -1)) > 1 ? word.slice(0, -1) : word;
}
