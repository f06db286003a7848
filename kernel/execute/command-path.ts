import { delimiter } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of the script `tunebook`, seen from dist/kernel/execute. */
const BIN = fileURLToPath(new URL("../../../kernel/bin", import.meta.url));

/** An environment in which commands find this kernel's `tunebook` first, run by this kernel's Node. */
export function withCommand(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const folders = (env.PATH ?? "").split(delimiter).filter((folder) => folder !== "" && folder !== BIN);
  return { ...env, PATH: [BIN, ...folders].join(delimiter), TUNEBOOK_NODE: process.execPath };
}
