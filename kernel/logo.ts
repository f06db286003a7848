/** The kernel's logo: a page with a curve that goes down, as a loss should. */
export const LOGO_SVG: string = [
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">',
  '<rect x="4" y="4" width="56" height="56" rx="12" fill="#20364f"/>',
  '<path d="M17 14v34h32" fill="none" stroke="#8fb3d9" stroke-width="4" stroke-linecap="round" stroke-linejoin="round"/>',
  '<path d="M23 18c3 15 9 22 25 23" fill="none" stroke="#ffb454" stroke-width="5" stroke-linecap="round"/>',
  '<circle cx="48" cy="41" r="4" fill="#ffb454"/>',
  "</svg>",
  "",
].join("\n");

/** The logo as PNG, so many pixels wide; undefined where the renderer is missing. */
export async function logoPng(width: number): Promise<Uint8Array | undefined> {
  try {
    const { Resvg } = await import("@resvg/resvg-js");
    return new Resvg(LOGO_SVG, { fitTo: { mode: "width", value: width } }).render().asPng();
  } catch {
    return undefined;
  }
}
