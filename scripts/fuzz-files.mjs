// npm run fuzz:files [-- --count N --seed N --only KIND]: damaged safetensors, GGUF, tokenizer.json, config.json and adapter files (N in all, a million
// by default). Each must be refused by an error of the library's or load: no other error, none slower than a second, no memory beyond its size + 64 MiB.
// The native reader is
// driven beside them, under AddressSanitizer. Needs a build and g++.
import { parseArgs } from "node:util";
import { fuzzFiles } from "../dist/test/hub/fuzz-files.js";
import { fuzzNative } from "./fuzz-native.mjs";

const { values } = parseArgs({
  options: { count: { type: "string" }, seed: { type: "string" }, only: { type: "string" } },
});
const count = Number(values.count ?? 1_000_000);
const seed = Number(values.seed ?? Date.now() % 1e9);
console.log(`seed ${seed}`);
const results = await fuzzFiles(count, seed, {
  ...(values.only && { only: values.only }),
  onKind: ({ kind, runs, refused, loaded, slowestMs, mostBytes, findings }) => {
    console.log(
      `${kind}: ${runs} files, ${refused} refused, ${loaded} loaded, slowest ${slowestMs.toFixed(0)} ms, most memory ${(mostBytes / 2 ** 20).toFixed(0)} MiB, ${findings.length} findings`,
    );
    for (const finding of findings.slice(0, 10)) console.log(finding);
  },
});
const native = values.only !== undefined || fuzzNative(Math.ceil(count / 5), seed);
if (!native || results.some(({ findings }) => findings.length > 0)) process.exitCode = 1;
