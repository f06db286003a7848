/**
 * The only place where HTML text is made. Nodes are typed: tags, attributes and style properties come from closed sets,
 * every text and attribute value is escaped, and there is no way to put in markup, an id or a script.
 */

export type Tag =
  | (
      | "div"
      | "span"
      | "p"
      | "b"
      | "i"
      | "code"
      | "pre"
      | "small"
      | "br"
      | "a"
      | "img"
      | "details"
      | "summary"
      | "ul"
      | "li"
    )
  | ("table" | "caption" | "thead" | "tbody" | "tfoot" | "tr" | "th" | "td");
const allowedTags: ReadonlySet<string> = new Set<Tag>([
  ...([
    "div",
    "span",
    "p",
    "b",
    "i",
    "code",
    "pre",
    "small",
    "br",
    "a",
    "img",
    "details",
    "summary",
    "ul",
    "li",
  ] as const),
  ...(["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"] as const),
]);
const voidTags: ReadonlySet<string> = new Set(["br", "img"]);

const styleProperties = {
  background: "background",
  border: "border",
  borderBottom: "border-bottom",
  borderCollapse: "border-collapse",
  borderRadius: "border-radius",
  borderTop: "border-top",
  color: "color",
  display: "display",
  flex: "flex",
  fontFamily: "font-family",
  fontSize: "font-size",
  fontStyle: "font-style",
  fontVariantNumeric: "font-variant-numeric",
  fontWeight: "font-weight",
  gap: "gap",
  height: "height",
  lineHeight: "line-height",
  margin: "margin",
  maxHeight: "max-height",
  maxWidth: "max-width",
  minWidth: "min-width",
  opacity: "opacity",
  overflow: "overflow",
  overflowWrap: "overflow-wrap",
  padding: "padding",
  textAlign: "text-align",
  verticalAlign: "vertical-align",
  whiteSpace: "white-space",
  width: "width",
} as const;

/** Inline style, written in code. A value with anything but plain words, numbers, colours and var() is refused. */
export type Style = { readonly [Name in keyof typeof styleProperties]?: string };

/** Attributes a node may have; `title`, `alt` and `href` may come from data, the others only from code. */
export interface Attributes {
  readonly style?: Style;
  readonly title?: string | undefined;
  readonly alt?: string;
  /** An http or https address; with any other the attribute is left out. */
  readonly href?: string;
  /** `data:image/png;base64,…` and the like; anything else is left out. */
  readonly src?: string;
  readonly colspan?: number;
  readonly rowspan?: number;
  readonly scope?: "row" | "col";
}

export type Child = HtmlNode | string | number | null | undefined;

/** A node made by {@link el}; nothing else is taken for one. */
export class HtmlNode {
  readonly #markup: string;

  /** Use {@link el}. */
  constructor(tag: Tag, attributes: Attributes, children: readonly Child[]) {
    if (!allowedTags.has(tag)) throw new TypeError(`html: the tag ${JSON.stringify(tag)} is not in the list`);
    const open = `<${tag}${writeAttributes(attributes)}>`;
    this.#markup = voidTags.has(tag) ? open : `${open}${children.map(HtmlNode.#child).join("")}</${tag}>`;
  }

  static #child(child: Child): string {
    if (child === null || child === undefined) return "";
    if (typeof child === "object" && #markup in child) return child.#markup;
    return escapeHtml(String(child));
  }

  /** The node as HTML text. */
  toString(): string {
    return this.#markup;
  }
}

/** Makes a node: `el("td", { title: text }, text)`. */
export function el(tag: Tag, attributes: Attributes = {}, ...children: Child[]): HtmlNode {
  return new HtmlNode(tag, attributes, children);
}

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

// biome-ignore lint/suspicious/noControlCharactersInRegex: HTML cannot hold these
const unwritable = /[\u0000-\u0008\u000b\u000e-\u001f\u007f]|\p{Surrogate}/gu;

/** Text made safe between tags and inside quoted attributes. Control characters and lone surrogates become U+FFFD. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => entities[sign]!).replace(unwritable, "\ufffd");
}

function writeAttributes(attributes: Attributes): string {
  let out = "";
  for (const [name, value] of Object.entries(attributes)) {
    const text = attributeText(name as keyof Attributes, value);
    if (text !== null) out += ` ${name}="${escapeHtml(text)}"`;
  }
  return out;
}

function attributeText(name: keyof Attributes, value: unknown): string | null {
  if (value === undefined || value === null) return null;
  switch (name) {
    case "style":
      return writeStyle(value as Style);
    case "title":
    case "alt":
      return String(value);
    case "href":
      return safeLink(String(value));
    case "src":
      return /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*$/.test(String(value)) ? String(value) : null;
    case "colspan":
    case "rowspan":
      return Number.isInteger(value) && (value as number) > 0 ? String(value) : null;
    case "scope":
      return value === "row" || value === "col" ? value : null;
    default:
      throw new TypeError(`html: the attribute ${JSON.stringify(name)} is not in the list`);
  }
}

function writeStyle(style: Style): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(style)) {
    const property = Object.hasOwn(styleProperties, name) ? styleProperties[name as keyof Style] : undefined;
    if (property === undefined || !/^[\w\s#%.,()-]*$/.test(value) || /url|expression|image|attr\(/i.test(value)) {
      throw new TypeError(`html: the style ${name}: ${JSON.stringify(value)} is not allowed`);
    }
    parts.push(`${property}:${value}`);
  }
  return parts.join(";");
}

function safeLink(address: string): string | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
}
