import { describeMagic, findMagic, magics, shellMagic } from "../../../magics/table.js";
import { type Implementation, UsageError } from "./host.js";

const types: Record<string, string> = {
  html: "text/html",
  markdown: "text/markdown",
  latex: "text/latex",
  svg: "image/svg+xml",
};

/** `%%html`, `%%markdown` … : the author's own text, as what it is. */
export const show: Implementation = ({ cell }, { name, texts, body }) => {
  if (texts.join("").trim() !== "")
    throw new UsageError(name, `'${texts.join("").trim()}' is not understood here: the text stands below the line.`);
  cell.publish({
    [types[name]!]: body,
    "text/plain": name === "markdown" || name === "latex" ? body : `[${name.toUpperCase()}]`,
  });
};

export const help: Implementation = ({ cell }, { texts }) => {
  const { text, markdown } = describeMagic(findMagic(texts[0]!)!);
  cell.publish({ "text/markdown": markdown, "text/plain": text });
};

export const lsmagic: Implementation = ({ cell }) => {
  const rows = [...magics, shellMagic].map(({ line, cell: whole, summary }) => ({
    forms: [line, whole].filter((form) => form !== undefined),
    summary,
  }));
  const width = Math.max(...rows.flatMap(({ forms }) => forms.map((form) => form.length)));
  const text = rows.map(({ forms, summary }) => {
    const [first = "", ...more] = forms;
    return [`${first.padEnd(width)}  ${summary.replaceAll("`", "")}`, ...more].join("\n");
  });
  const code = (form: string): string => `\`${form.replaceAll("|", "\\|")}\``;
  const table = rows.map(
    ({ forms, summary }) => `| ${forms.map(code).join("<br>")} | ${summary.replaceAll("|", "\\|")} |`,
  );
  cell.publish({
    "text/markdown": ["| magic | what it does |", "| :-- | :-- |", ...table, "", "`%NAME?` tells more about one."].join(
      "\n",
    ),
    "text/plain": [...text, "", "%NAME? tells more about one."].join("\n"),
  });
};
