import type { GenerationConfig } from "./hub/config.js";
import type { Tokenizer } from "./hub/tokenizer.js";
import type { CausalLM } from "./models/causal.js";

/** What a model is made of; `loadModel` puts it together. */
export interface ModelParts {
  network: CausalLM;
  /** The error when there is none: thrown where a tokenizer is needed. */
  tokenizer: Tokenizer | Error | undefined;
  generation: GenerationConfig | undefined;
  /** What the user loaded it by, for adapter_config.json. */
  base: string;
  name: string;
}
