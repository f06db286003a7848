/** The tables of `@huggingface/tokenizers`' BPE, from what the checks have read already: the library would make objects and texts of each entry again. */
import { isObject, type Json, type JsonObject, own } from "./json.js";
import type { LibraryBpe, LibraryTokenizer } from "./token-library.js";

/** A tokenizer.json without the tables that {@link fillTables} fills; undefined when the library has to make them. */
export function withoutTables(source: JsonObject): JsonObject | undefined {
  const model = own(source, "model");
  if (!isObject(model) || own(model, "type") !== "BPE") return undefined;
  const merges = own(model, "merges");
  if (!Array.isArray(merges) || !merges.every(isPlain)) return undefined;
  const bare: JsonObject = {};
  for (const name of Object.keys(model)) if (name !== "vocab" && name !== "merges") bare[name] = model[name]!;
  return { ...source, model: { ...bare, vocab: {}, merges: [] } };
}

/**
 * Fills what {@link withoutTables} left out.
 *
 * @param ids The vocabulary without added tokens, which the library has put into its own tables.
 */
export function fillTables(created: LibraryTokenizer, source: JsonObject, ids: ReadonlyMap<string, number>): void {
  const model = created.model as LibraryBpe;
  const described = own(source, "model") as JsonObject;
  const added = model.tokens_to_ids;
  const spelled = model.vocab;
  model.tokens_to_ids = new Map(ids);
  model.vocab = new Array<string>(ids.size);
  for (const [token, id] of ids) model.vocab[id] = token;
  for (const [token, id] of added) model.tokens_to_ids.set(token, id);
  spelled.forEach((token, id) => {
    model.vocab[id] = token;
  });
  const unknown = own(described, "unk_token");
  model.unk_token_id = typeof unknown === "string" ? ids.get(unknown) : undefined;
  // Neither side of a merge has a space, so that a pair with one in its tokens finds nothing.
  const ranks = new Map<string, number>();
  (own(described, "merges") as Json[]).forEach((merge, rank) => {
    ranks.set(typeof merge === "string" ? merge : (merge as string[]).join(" "), rank);
  });
  model.add_node = (queue, node) => {
    const rank = ranks.get(`${node.token} ${node.next.token}`);
    if (rank === undefined) return;
    node.score = rank + node.bias;
    queue.push(node);
  };
}

// Whether a merge can be known by its tokens with a space between. One that is written as a text is: checks saw to its two tokens.
function isPlain(merge: Json): boolean {
  if (typeof merge === "string") return true;
  return Array.isArray(merge) && merge.every((token) => typeof token === "string" && !token.includes(" "));
}
