import { createRequire } from "node:module";
import { type Json, PROTOCOL_VERSION } from "./message.js";

const require: NodeJS.Require = createRequire(import.meta.url);

/** Version of this package. */
export const VERSION: string = (require("../../../package.json") as { version: string }).version;

/** What front ends need to know about the language of the cells. */
export function languageInfo(): Json {
  return {
    name: "typescript",
    version: (require("typescript/package.json") as { version: string }).version,
    mimetype: "text/x-typescript",
    file_extension: ".ts",
    pygments_lexer: "typescript",
    codemirror_mode: "typescript",
    nbconvert_exporter: "script",
  };
}

/** Content of `kernel_info_reply`. */
export function kernelInfo(): Json {
  return {
    status: "ok",
    protocol_version: PROTOCOL_VERSION,
    implementation: "tunebook",
    implementation_version: VERSION,
    language_info: languageInfo(),
    banner: `tunebook ${VERSION}: TypeScript that fine-tunes language models, on Node ${process.versions.node}`,
    debugger: false,
    supported_features: ["kernel subshells"],
    help_links: [
      { text: "TypeScript", url: "https://www.typescriptlang.org/docs/" },
      { text: "Node.js", url: "https://nodejs.org/api/" },
    ],
  };
}
