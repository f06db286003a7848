import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/** 2,000 texts of the shared data: 400 each of Chinese answers, Python, dialogues, short messages and Chinese calls. make_sentencepiece.py reads the same. */
export async function sharedRows(shared: string): Promise<string[]> {
  const data = join(shared, "data");
  const lines = async (path: string): Promise<string[]> => {
    const bytes = await readFile(join(data, path));
    return (path.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8").split("\n").slice(0, 400);
  };
  const alpaca = JSON.parse(await readFile(join(data, "alpaca_gpt4_zh/alpaca_zh_demo.json"), "utf8"));
  return [
    ...alpaca.slice(0, 400).map((row: { output: string }) => row.output),
    ...(await lines("code_toy/mbpp.jsonl")),
    ...(await lines("dialogsum/dialogsum.dev.jsonl")),
    ...(await lines("sms_spam/SMSSpamCollection.tsv")),
    ...(await lines("fraud_telecom5/telecom_fraud_5.jsonl.gz")),
  ];
}

/** SHA-256 of lists of ids, as make_sentencepiece.py forms it. */
export function digestOf(lists: readonly (readonly number[])[]): string {
  return createHash("sha256")
    .update(lists.map((ids) => ids.join(" ")).join("\n"))
    .digest("hex");
}
