import type { ConfigFields } from "../hub/config.js";

/**
 * Keys that a query of each layer sees, itself included; 0: all. As Qwen's configs say it: `use_sliding_window` (off by default) puts a window of `sliding_window` keys
 * on the layers from `max_window_layers` on, unless `layer_types` names the layers one by one.
 */
export function windows(c: ConfigFields, layers: number): number[] {
  const used = c.boolean("use_sliding_window", { default: false }) && c.get("sliding_window") !== null;
  const window = used ? c.integer("sliding_window", { default: 4096, min: 1 }) : 0;
  const from = c.integer("max_window_layers", { default: 28, min: 0 });
  if (!c.given("layer_types")) return Array.from({ length: layers }, (_, i) => (i >= from ? window : 0));
  const known = (t: unknown): t is string => t === "full_attention" || t === "sliding_attention";
  const types = c.array("layer_types", '"full_attention" or "sliding_attention"', known);
  if (types.length !== layers) throw c.wrong("layer_types", `an array of ${layers}, one a layer`);
  if (!used && types.includes("sliding_attention")) throw c.wrong("sliding_window", "a number of keys");
  return types.map((t) => (t === "sliding_attention" ? window : 0));
}
