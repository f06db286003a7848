import { fileURLToPath } from "node:url";

/** The folder of models, tokenizers and data that are no part of the repository: ../shared, or TUNEBOOK_SHARED. */
export const shared: string = process.env.TUNEBOOK_SHARED ?? fileURLToPath(new URL("../../../shared", import.meta.url));
