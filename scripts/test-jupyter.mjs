// npm run test:jupyter: the kernel under Jupyter's own programs. Needs Python 3.11 or newer and a Chromium; the
// Python packages go into .venv. Ends with "N passed, N failed".
//   node scripts/test-jupyter.mjs                     everything
//   node scripts/test-jupyter.mjs --only protocol     jupyter_kernel_test, nbclient, papermill, nbconvert
//   node scripts/test-jupyter.mjs --only lab          JupyterLab in a browser
//   node scripts/test-jupyter.mjs --look NOTEBOOK…    opens executed notebooks and takes a picture of each
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { jupyterEnvironment, startLab } from "./jupyter-lab.mjs";
import { run, setup, step } from "./setup.mjs";
import { bin, ensureVenv } from "./venv.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const screenshots = join(root, ".cache", "screenshots");
const counts = { passed: 0, failed: 0, skipped: 0 };

async function prepare() {
  setup();
  step("preparing the Python packages");
  const venv = await ensureVenv("jupyter");
  step("installing the kernelspec");
  run(process.execPath, [join("dist", "kernel", "cli.js"), "install", "--prefix", venv]);
}

/** The Python side: every test module of test/jupyter. */
function protocol() {
  step("jupyter_kernel_test, nbclient, papermill, nbconvert");
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
  const folder = mkdtempSync(join(tmpdir(), "tunebook-notebooks-"));
  cpSync(join(root, "test", "jupyter", "front-end.ipynb"), join(folder, "front-end.ipynb"));
  let server;
  try {
    await check("JupyterLab starts", async () => {
      // As most people have it: without the extension that draws plotly figures.
      server = await startLab(folder, { disabledExtensions: ["jupyterlab-plotly"] });
    });
    if (server) await frontEnd(server);
  } finally {
    await server?.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function frontEnd(server) {
  let book;
  await check("a notebook opens on the kernel", async () => {
    book = await server.open("front-end.ipynb");
  });
  if (!book) return;
  const { page } = book;
  await check("Run All Cells ends", () => book.runAll());
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
  await check("no cell failed", async () => {
    const errors = page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]');
    if ((await errors.count()) > 0) throw new Error((await errors.first().textContent()) ?? "an error");
  });
  await check("completion opens while typing in a cell", () => completion(page));
  await check("a picture of the page is taken", () => book.screenshot(join(screenshots, "front-end.png")));
}

async function completion(page) {
  await page.locator(".jp-Notebook .jp-CodeCell .cm-content").last().click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type("\nsteps[0].lo");
  await page.keyboard.press("Tab");
  const completer = page.locator(".jp-Completer-item", { hasText: "loss" }).first();
  const completed = page.locator(".jp-Notebook .cm-content", { hasText: "steps[0].loss" }).first();
  // One match is filled in at once, several open a list.
  await Promise.any([completer.waitFor({ timeout: 15_000 }), completed.waitFor({ timeout: 15_000 })]);
  await page.keyboard.press("Escape");
}

/** Takes a picture of notebooks as they stand, outputs included, without running them. */
async function look(paths) {
  await ensureVenv("jupyter");
  mkdirSync(screenshots, { recursive: true });
  for (const path of paths.map((each) => resolve(each))) {
    const server = await startLab(dirname(path), { disabledExtensions: ["jupyterlab-plotly"] });
    try {
      const book = await server.open(basename(path));
      const target = join(screenshots, `${basename(path, ".ipynb")}.png`);
      await book.screenshot(target);
      console.log(target);
    } finally {
      await server.close();
    }
  }
}

async function main() {
  const [flag, ...rest] = process.argv.slice(2);
  if (flag === "--look" && rest.length > 0) return look(rest);
  const only = flag === "--only" ? rest[0] : undefined;
  if (flag !== undefined && !["protocol", "lab"].includes(only)) throw new Error("usage: see the head of this file");
  await prepare();
  if (only !== "lab") protocol();
  if (only !== "protocol") await lab();
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
  console.log(`${counts.passed} passed, ${counts.failed} failed${skipped}`);
  if (counts.failed > 0) process.exitCode = 1;
}

main().catch((error) => {
  console.error(`test:jupyter: ${error.stack ?? error}`);
  process.exitCode = 1;
});
