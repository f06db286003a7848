import { decodeImage, type ImageSource } from "./decode.js";
import { type Picture, type PictureSettings, patchGrid } from "./patches.js";
import { type PixelLimits, resize, smartSize } from "./resize.js";

/**
 * An image as a model of these settings sees it: decoded, and brought to a size within the limits.
 *
 * @param limits other limits than the settings'
 * @param where what it is, for messages
 * @throws DataError for a file that cannot be used
 */
export async function readPicture(
  source: ImageSource,
  settings: PictureSettings,
  where: string,
  limits: Partial<PixelLimits> = {},
): Promise<Picture> {
  const image = await decodeImage(source, where);
  const { patchSize, mergeSize } = settings;
  const { minPixels = settings.minPixels, maxPixels = settings.maxPixels } = limits;
  const size = smartSize(image, patchSize * mergeSize, { minPixels, maxPixels }, where);
  const resized = resize(image, size.width, size.height);
  const [down, across] = patchGrid(resized, settings);
  return { ...resized, tokens: (down * across) / mergeSize ** 2 };
}
