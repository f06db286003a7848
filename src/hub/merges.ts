/**
 * Merges of a sentencepiece vocabulary: every pair of tokens whose join is a token, the one with the higher score first. The pairs of
 * one join follow by the ids of their sides, as in the tokenizer.json that transformers' converter made of Llama 2's vocabulary.
 *
 * @param tokens What merges make, with a score each.
 * @param ids Token → id of all that may stand at a side of a merge.
 */
export function mergesByScore(
  tokens: readonly string[],
  scores: readonly number[],
  ids: Readonly<Record<string, number>>,
): [string, string][] {
  const found: { left: string; right: string; score: number }[] = [];
  tokens.forEach((token, id) => {
    const characters = [...token];
    const local: typeof found = [];
    for (let at = 1; at < characters.length; at++) {
      const left = characters.slice(0, at).join("");
      const right = characters.slice(at).join("");
      if (ids[left] === undefined || ids[right] === undefined) continue;
      local.push({ left, right, score: scores[id]! });
    }
    local.sort((a, b) => ids[a.left]! - ids[b.left]! || ids[a.right]! - ids[b.right]!);
    found.push(...local);
  });
  found.sort((a, b) => b.score - a.score);
  return found.map(({ left, right }) => [left, right]);
}
