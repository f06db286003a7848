// npm run test:jupyter: the kernel under Jupyter's own programs. Needs Python 3.11 or newer and a Chromium; the
// Python packages go into .venv. Ends with "N passed, N failed".
//   node scripts/test-jupyter.mjs                     everything
//   node scripts/test-jupyter.mjs --only protocol     jupyter_kernel_test, nbclient, papermill, nbconvert, jupyter_console, a server
//   node scripts/test-jupyter.mjs --only lab          JupyterLab in a browser
//   node scripts/test-jupyter.mjs --only real         real weights and text of ../shared, by `tunebook run`
//   … --no-setup                                     with what is built already
//   node scripts/test-jupyter.mjs --look NOTEBOOK…    opens executed notebooks and takes pictures of them
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { jupyterEnvironment, startLab } from "./jupyter-lab.mjs";
import { session } from "./jupyter-session.mjs";
import { run, setup, step } from "./setup.mjs";
import { shared } from "./shared.mjs";
import { bin, ensureVenv, pipInstall } from "./venv.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const screenshots = join(root, ".cache", "screenshots");
const counts = { passed: 0, failed: 0, skipped: 0 };

async function prepare(built) {
  if (!built) setup();
  step("preparing the Python packages");
  const venv = await ensureVenv("jupyter");
  step("installing papermill's translator and the kernelspec");
  const build = mkdtempSync(join(tmpdir(), "tunebook-papermill-"));
  cpSync(join(root, "kernel", "papermill"), build, { recursive: true }); // pip builds where the sources are
  pipInstall("--force-reinstall", "--no-deps", build);
  rmSync(build, { recursive: true, force: true });
  run(process.execPath, [join("dist", "kernel", "cli.js"), "install", "--prefix", venv]);
}

/** The Python side: every test module of test/jupyter. */
function protocol() {
  step("jupyter_kernel_test, nbclient, papermill, nbconvert, jupyter_console, a Jupyter server");
  const folder = mkdtempSync(join(tmpdir(), "tunebook-jupyter-"));
  const result = join(folder, "counts.json");
  try {
    const { status } = spawnSync(bin("python"), [join("test", "jupyter", "run.py"), result], {
      cwd: root,
      env: jupyterEnvironment(folder),
      stdio: ["ignore", "inherit", "inherit"],
      timeout: 20 * 60_000,
    });
    if (!existsSync(result)) throw new Error(`the Python tests ended with code ${status} and no counts`);
    const found = JSON.parse(readFileSync(result, "utf8"));
    for (const key of Object.keys(counts)) counts[key] += found[key];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One named check; a failure is printed and counted, and the next one still runs. */
async function check(name, body) {
  try {
    await body();
    counts.passed++;
    console.log(`ok ${name}`);
  } catch (error) {
    counts.failed++;
    console.log(`not ok ${name}\n    ${String(error.stack ?? error).replaceAll("\n", "\n    ")}`);
  }
}

async function lab() {
  step("JupyterLab in a headless browser");
  mkdirSync(screenshots, { recursive: true });
  // As most people have it, and with the extension that draws plotly figures (the "plotly" wheel brings it).
  await withLab("stock", ["jupyterlab-plotly"], async (server) => {
    await frontEnd(server);
    await library(server, "stock", 'img[src^="data:image/png;base64,"]');
    await session(server, check, screenshots);
  });
  await withLab("with plotly's extension", [], (server) => library(server, "plotly", ".js-plotly-plot .main-svg"));
}

async function withLab(title, disabledExtensions, body) {
  const folder = mkdtempSync(join(tmpdir(), "tunebook-notebooks-"));
  for (const name of ["front-end.ipynb", "library.ipynb", "session.ipynb"]) {
    cpSync(join(root, "test", "jupyter", name), join(folder, name));
  }
  let server;
  try {
    await check(`JupyterLab starts (${title})`, async () => {
      server = await startLab(folder, { disabledExtensions });
    });
    if (server) await body(server);
  } finally {
    await server?.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Opens a notebook and runs all of it; undefined when that failed. */
async function opened(server, name) {
  let book;
  await check(`${name} opens on the kernel`, async () => {
    book = await server.open(name);
  });
  if (!book) return undefined;
  await check(`${name}: Run All Cells ends and no cell failed`, async () => {
    await book.runAll();
    await book.save();
    const { cells } = JSON.parse(readFileSync(join(server.folder, name), "utf8"));
    const failed = cells.flatMap((cell) => cell.outputs ?? []).find((output) => output.output_type === "error");
    if (failed) throw new Error(failed.traceback.join("\n"));
    if (!cells.some((cell) => cell.outputs?.length > 0)) throw new Error("the saved notebook has no outputs");
  });
  return book;
}

async function library(server, title, chart) {
  const book = await opened(server, "library.ipynb");
  if (!book) return;
  const output = (selector) => book.page.locator(`.jp-OutputArea ${selector}`).first();
  await check(`the dataset is shown as a table (${title})`, () => output("table td").waitFor({ timeout: 10_000 }));
  await check(`the chart is drawn (${title})`, async () => {
    // Where a picture stands beside the figure, plotly's extension draws the figure once the pointer is over it.
    if (title === "plotly") await output(".jp-RenderedPlotly img").dispatchEvent("mouseenter", {}, { timeout: 20_000 });
    await output(chart).waitFor({ timeout: 20_000 });
  });
  await check(`the page is photographed (${title})`, () => book.screenshot(join(screenshots, `library-${title}.png`)));
  await book.page.close();
}

async function frontEnd(server) {
  const book = await opened(server, "front-end.ipynb");
  if (!book) return;
  const { page } = book;
  const visible = (selector) => page.locator(`.jp-OutputArea ${selector}`).first().waitFor({ timeout: 10_000 });
  await check("the streams are shown", async () => {
    await visible('[data-mime-type="application/vnd.jupyter.stdout"]');
    await visible('[data-mime-type="application/vnd.jupyter.stderr"]');
  });
  await check("the table is shown", () => visible("table td"));
  await check("the picture is shown", async () => {
    await visible('img[src^="data:image/png;base64,"]');
    const width = await page
      .locator(".jp-OutputArea img")
      .first()
      .evaluate((image) => image.naturalWidth);
    if (width === 0) throw new Error("the picture could not be decoded");
  });
  await check("the last expression is the result", async () => {
    const text = await page.locator(".jp-OutputArea-executeResult").last().textContent();
    if (!text?.includes("6.4")) throw new Error(`the result reads ${JSON.stringify(text)}`);
  });
  await check("completion opens while typing in a cell", () => completion(page));
  await check("the page is photographed", () => book.screenshot(join(screenshots, "front-end.png")));
  await page.close();
}

async function completion(page) {
  await page.locator(".jp-Notebook .jp-CodeCell .cm-content").last().click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type("\nsteps[0].loss.toPrec");
  await page.keyboard.press("Tab");
  const completer = page.locator(".jp-Completer-item", { hasText: "toPrecision" }).first();
  const completed = page.locator(".jp-Notebook .cm-content", { hasText: "loss.toPrecision" }).first();
  // One match is filled in at once, several open a list.
  await Promise.any([completer.waitFor({ timeout: 15_000 }), completed.waitFor({ timeout: 15_000 })]);
  await page.keyboard.press("Escape");
}

/** `tunebook run` on real weights and real text, where the shared folder has them; then the executed notebook in JupyterLab. */
async function realInput() {
  step("tunebook run on real weights and real text");
  const model = join(shared, "models", "stories260K");
  const rows = join(shared, "data", "dialogsum", "dialogsum.dev.jsonl");
  if (!existsSync(model) || !existsSync(rows)) {
    console.log(`skipped: ${model} or ${rows} is absent`);
    counts.skipped++;
    return;
  }
  mkdirSync(screenshots, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), "tunebook-real-"));
  const executed = join(folder, "real-input.ipynb");
  const source = join("test", "jupyter", "real-input.ipynb");
  const parameters = [`model=${model}`, `rows=${rows}`, "steps=60"].flatMap((each) => ["-p", each]);
  let server;
  try {
    await check("the notebook runs to its end", async () => {
      run(process.execPath, [join("dist", "kernel", "cli.js"), "run", source, "-o", executed, ...parameters]);
    });
    await check("QLoRA lowers the validation loss clearly", async () => {
      const { cells } = JSON.parse(readFileSync(executed, "utf8"));
      const texts = cells.flatMap((cell) => cell.outputs ?? []).map((output) => output.data?.["text/plain"] ?? "");
      const line = texts.map((text) => /^loss +([\d.]+) +([\d.]+)$/m.exec([text].flat().join(""))).find(Boolean);
      if (!line) throw new Error("no table holds the loss before and after");
      console.log(`validation loss ${line[1]} before, ${line[2]} after`);
      if (!(Number(line[2]) < 0.7 * Number(line[1]))) throw new Error("the loss hardly moved");
    });
    await check("the executed notebook opens in JupyterLab with its tables and charts", async () => {
      server = await startLab(folder, { disabledExtensions: ["jupyterlab-plotly"] });
      const book = await server.open("real-input.ipynb");
      await book.page.locator(".jp-OutputArea table td").first().waitFor({ timeout: 20_000 });
      await book.page.locator('.jp-OutputArea img[src^="data:image/png;base64,"]').first().waitFor({ timeout: 20_000 });
      await book.screenshot(join(screenshots, "real-input.png"));
    });
  } finally {
    await server?.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Takes pictures of notebooks as they stand, outputs included, without running them. */
async function look(paths) {
  await ensureVenv("jupyter");
  mkdirSync(screenshots, { recursive: true });
  for (const path of paths) {
    const folder = mkdtempSync(join(tmpdir(), "tunebook-look-"));
    cpSync(path, join(folder, basename(path)));
    const server = await startLab(folder, { disabledExtensions: ["jupyterlab-plotly"] });
    try {
      const book = await server.open(basename(path));
      for (const picture of await book.pictures(join(screenshots, basename(path, ".ipynb")))) console.log(picture);
    } finally {
      await server.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: "string", default: "" },
      look: { type: "boolean", default: false },
      "no-setup": { type: "boolean", default: false },
    },
  });
  if (values.look) return look(positionals);
  if (!["", "protocol", "lab", "real"].includes(values.only)) throw new Error("usage: see the head of this file");
  await prepare(values["no-setup"]);
  const wanted = (part) => values.only === "" || values.only === part;
  if (wanted("protocol")) protocol();
  if (wanted("lab")) await lab();
  if (wanted("real")) await realInput();
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
  console.log(`${counts.passed} passed, ${counts.failed} failed${skipped}`);
  if (counts.failed > 0) process.exitCode = 1;
}

main().catch((error) => {
  console.error(`test:jupyter: ${error.stack ?? error}`);
  process.exitCode = 1;
});
