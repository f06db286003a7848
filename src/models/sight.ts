import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { Json } from "../hub/json.js";
import type { PictureSettings } from "../images/patches.js";
import type { CausalLM } from "./causal.js";

/** Takes over what a checkpoint's preprocessor_config.json says of images. @throws ConfigError for what does not fit the model. */
export function prepareSight(model: CausalLM, c: ConfigFields | undefined): void {
  if (!model.sight || !c) return;
  const { settings } = model.sight;
  const size = c.object("size");
  const limit = (field: string, edge: string, otherwise: number): number => {
    if (c.given(field)) return c.integer(field, { min: 1 });
    return size?.given(edge) ? size.integer(edge, { min: 1 }) : otherwise;
  };
  const triple = (field: string, otherwise: readonly number[]): readonly number[] => {
    const isNumber = (value: Json): value is number => typeof value === "number";
    const found = c.array(field, "three numbers", isNumber, { default: [...otherwise] });
    if (found.length !== 3) throw c.wrong(field, "an array of three numbers");
    return found;
  };
  const same = (field: string, own: number): number => {
    if (c.integer(field, { default: own }) !== own) throw c.wrong(field, `${own}, as config.json has it`);
    return own;
  };
  const made: PictureSettings = {
    minPixels: limit("min_pixels", "shortest_edge", settings.minPixels),
    maxPixels: limit("max_pixels", "longest_edge", settings.maxPixels),
    patchSize: same("patch_size", settings.patchSize),
    mergeSize: same("merge_size", settings.mergeSize),
    temporalPatchSize: same("temporal_patch_size", settings.temporalPatchSize),
    mean: triple("image_mean", settings.mean),
    std: triple("image_std", settings.std),
  };
  if (made.minPixels > made.maxPixels || made.std.some((s) => !(s > 0)))
    throw new ConfigError(
      `${c.where}: expected pixels from ${made.minPixels} to ${made.maxPixels} and deviations above 0, got [${made.std.join(", ")}].`,
    );
  model.sight = { ...model.sight, settings: made };
}

/** What transformers reads as preprocessor_config.json. */
export function preprocessorConfig(settings: PictureSettings): Record<string, unknown> {
  const { minPixels, maxPixels, patchSize, mergeSize, temporalPatchSize, mean, std } = settings;
  return {
    image_processor_type: "Qwen2VLImageProcessor",
    processor_class: "Qwen2VLProcessor",
    min_pixels: minPixels,
    max_pixels: maxPixels,
    size: { shortest_edge: minPixels, longest_edge: maxPixels },
    patch_size: patchSize,
    merge_size: mergeSize,
    temporal_patch_size: temporalPatchSize,
    image_mean: mean,
    image_std: std,
  };
}
