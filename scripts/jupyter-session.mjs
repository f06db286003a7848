// What a person does with a notebook in JupyterLab beyond running it: watches a bar move, stops an endless loop, completes, asks for a tooltip, restarts.
import { join } from "node:path";

const LIMIT = 60_000;

/**
 * Goes through session.ipynb as a person would.
 * @param {{ open(name: string): Promise<{ page: import("playwright-core").Page, screenshot(path: string): Promise<void> }> }} server
 * @param {(name: string, body: () => Promise<void>) => Promise<void>} check - counts one check
 * @param {string} pictures - folder of the screenshots
 */
export async function session(server, check, pictures) {
  let book;
  await check("session.ipynb opens on the kernel", async () => {
    book = await server.open("session.ipynb");
  });
  if (!book) return;
  const { page } = book;
  const cell = (index) => page.locator(".jp-Notebook .jp-CodeCell").nth(index);
  const shot = (name) => page.screenshot({ path: join(pictures, `session-${name}.png`) });
  await page.setViewportSize({ width: 1280, height: 1000 });

  await check("code is highlighted as TypeScript", async () => {
    const found = await cell(0)
      .locator(".cm-line span")
      .evaluateAll((spans) => spans.map((span) => [span.textContent?.trim(), getComputedStyle(span).color]));
    const colours = new Map(found);
    // A keyword and a type that only TypeScript's grammar knows, a keyword of JavaScript's, a text, a number.
    for (const word of ["interface", "Harbour", "const", '"Wrenmouth"', "12"]) {
      if (!colours.has(word)) throw new Error(`${word} is not marked: ${JSON.stringify(found.slice(0, 30))}`);
    }
    if (new Set(colours.values()).size < 4) throw new Error(`only these colours: ${[...new Set(colours.values())]}`);
  });

  await check("a cell runs by Shift+Enter", async () => {
    await runCell(page, cell(0));
    await done(page, cell(0));
  });

  await check("progress moves while its cell runs", async () => {
    await runCell(page, cell(1));
    const output = cell(1).locator(".jp-OutputArea-output");
    await output.first().waitFor({ timeout: LIMIT });
    const seen = new Set();
    for (let i = 0; i < 400 && (await busy(cell(1))); i++) {
      seen.add((await output.first().textContent())?.replace(/\s+/g, " "));
      if (seen.size === 4) await shot("progress");
      await page.waitForTimeout(50);
    }
    if (seen.size < 5) throw new Error(`the bar was only seen as ${[...seen].join(" / ")}`);
    if ((await output.count()) !== 1) throw new Error(`${await output.count()} outputs stand there, one was expected`);
    const last = await output.first().textContent();
    if (!last?.includes("40")) throw new Error(`at its end the bar reads ${last}`);
  });

  await check("an endless loop is interrupted", async () => {
    await runCell(page, cell(2));
    await cell(2).locator(".jp-OutputArea-output", { hasText: "begun" }).waitFor({ timeout: LIMIT });
    await command(page, "Kernel", "kernelmenu:interrupt");
    await cell(2).locator(".jp-OutputArea-output", { hasText: "InterruptedError" }).waitFor({ timeout: 10_000 });
    await done(page, cell(2));
  });

  await check("variables outlive the interrupt", async () => {
    await runCell(page, cell(3));
    await cell(3).locator(".jp-OutputArea-executeResult", { hasText: "42" }).waitFor({ timeout: LIMIT });
    await shot("interrupted");
  });

  await check("completion opens with the kernel's names and their kinds", async () => {
    await write(page, cell(3), "harbours[0]!.");
    await page.keyboard.press("Tab");
    const items = page.locator(".jp-Completer-item");
    await items.first().waitFor({ timeout: LIMIT });
    await page.waitForTimeout(500);
    await shot("completion");
    const texts = await items.allTextContents();
    for (const name of ["boats", "name"]) {
      if (!texts.some((text) => text.includes(name))) throw new Error(`${name} is not offered: ${texts}`);
    }
    if (!texts.every((text) => text.includes("property"))) throw new Error(`the kinds are missing: ${texts}`);
    await page.keyboard.press("Escape");
  });

  await check("Shift+Tab shows type and documentation", async () => {
    await tooltip(page, cell(3), "harbours", ["harbours: Harbour[]"]);
    await page.keyboard.press("Escape");
    await tooltip(page, cell(3), "Math.max(1, ", ["max(...values: number[]): number", "Returns the larger of a set"]);
    await shot("tooltip");
    await page.keyboard.press("Escape");
  });

  await check("after a restart the kernel runs cells again and knows no variables", async () => {
    await write(page, cell(3), "kept + 1");
    await page.keyboard.press("Escape");
    await command(page, "Kernel", "kernelmenu:restart");
    await page.locator(".jp-Dialog .jp-mod-accept").click();
    await page.locator(".jp-Dialog").waitFor({ state: "detached", timeout: LIMIT });
    await page.waitForFunction(
      () => document.querySelector(".jp-Notebook-ExecutionIndicator")?.getAttribute("data-status") === "idle",
      null,
      { timeout: LIMIT },
    );
    await runCell(page, cell(3));
    await cell(3).locator(".jp-OutputArea-output", { hasText: "Cannot find name 'kept'" }).waitFor({ timeout: LIMIT });
    await shot("restarted");
    await runCell(page, cell(0));
    await runCell(page, cell(3));
    await cell(3).locator(".jp-OutputArea-executeResult", { hasText: "42" }).waitFor({ timeout: LIMIT });
  });

  await check("the session is photographed", () => book.screenshot(join(pictures, "session.png")));
  await page.close();
}

/** Puts the cursor into a cell and runs it. */
async function runCell(page, cell) {
  await cell.locator(".cm-content").click();
  await page.keyboard.press("Shift+Enter");
}

/** Replaces the text of a cell by typing. */
async function write(page, cell, text) {
  await cell.locator(".cm-content").click();
  await page.keyboard.press("Control+a");
  await page.keyboard.type(text, { delay: 20 });
}

/** Types text, asks for the tooltip, and looks for parts in it. */
async function tooltip(page, cell, text, parts) {
  await write(page, cell, text);
  await page.keyboard.press("Shift+Tab");
  const shown = page.locator(".jp-Tooltip");
  await shown.waitFor({ timeout: LIMIT });
  await page.waitForTimeout(300);
  const found = (await shown.textContent()) ?? "";
  for (const part of parts) if (!found.includes(part)) throw new Error(`the tooltip of ${text} reads ${found}`);
  if (found.includes("```")) throw new Error(`the tooltip shows its own markup: ${found}`);
}

const prompt = (cell) => cell.locator(".jp-InputArea .jp-InputPrompt").first();

async function busy(cell) {
  return ((await prompt(cell).textContent()) ?? "").includes("*");
}

async function done(page, cell) {
  const until = Date.now() + LIMIT;
  while (!/\[\d+\]/.test((await prompt(cell).textContent()) ?? "")) {
    if (Date.now() > until) throw new Error("the cell does not end");
    await page.waitForTimeout(100);
  }
}

async function command(page, title, id) {
  await page.getByRole("menuitem", { name: title, exact: true }).click();
  await page.locator(`.lm-Menu-item[data-command="${id}"]`).click();
}
