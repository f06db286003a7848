import { ConfigError } from "../errors.js";

/** Types that weights can be written in. */
export type ExportDType = "float32" | "bfloat16" | "float16";
const DTYPES: readonly string[] = ["float32", "bfloat16", "float16"] satisfies ExportDType[];

/** What a GGUF file can be exported in: the names of llama.cpp's file types. */
export type GgufDType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0" | "Q4_K_M";
const GGUF_DTYPES: readonly string[] = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M"] satisfies GgufDType[];

/** Options of `export`: a folder as transformers reads it, or one file for llama.cpp. */
export type ExportOptions =
  | { format?: "safetensors"; dtype?: ExportDType; shardBytes?: number }
  | { format: "gguf"; dtype?: GgufDType };

/** @throws ConfigError for a format or dtype that cannot be written. */
export function checkExport({ format = "safetensors", dtype }: { format?: string; dtype?: string }): void {
  if (format !== "safetensors" && format !== "gguf")
    throw new ConfigError(`export: format must be "safetensors" or "gguf", received ${JSON.stringify(format)}.`);
  const known = format === "gguf" ? GGUF_DTYPES : DTYPES;
  if (dtype !== undefined && !known.includes(dtype))
    throw new ConfigError(
      `export: dtype must be ${known.map((name) => `"${name}"`).join(", ")} for ${format}, received ${JSON.stringify(dtype)}.`,
    );
}
