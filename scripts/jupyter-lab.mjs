// JupyterLab in a headless Chromium: starts both, opens a notebook, runs it as a person would, and looks at it.
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bin } from "./venv.mjs";

const browserFlags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Path of a Chromium: CHROMIUM=…, or the system's; as root on a system with apt-get it is installed when missing. */
export function chromiumPath() {
  const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const find = () => candidates.find((path) => path && existsSync(path));
  if (find()) return find();
  const root = process.getuid?.() === 0;
  if (root && spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status === 0) {
    console.log("==> installing Chromium (apt-get install chromium)");
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const options = { stdio: ["ignore", "ignore", "inherit"], env };
    spawnSync("apt-get", ["update", "-qq"], options);
    spawnSync("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"], options);
    if (find()) return find();
  }
  throw new Error("No Chromium was found. Install it (Debian: apt-get install chromium), or name one by CHROMIUM=…");
}

/** Folders of their own for everything that Jupyter would otherwise read and write in the home folder. */
export function jupyterEnvironment(folder, { disabledExtensions = [] } = {}) {
  const config = join(folder, "config");
  const settings = join(folder, "settings", "@jupyterlab", "notebook-extension");
  mkdirSync(join(config, "labconfig"), { recursive: true });
  mkdirSync(settings, { recursive: true });
  const disabled = Object.fromEntries(
    ["@jupyterlab/apputils-extension:announcements", ...disabledExtensions].map((name) => [name, true]),
  );
  writeFileSync(join(config, "labconfig", "page_config.json"), JSON.stringify({ disabledExtensions: disabled }));
  // Every cell stays in the page, so that all outputs can be looked at without scrolling.
  writeFileSync(join(settings, "tracker.jupyterlab-settings"), JSON.stringify({ windowingMode: "none" }));
  return {
    ...process.env,
    JUPYTER_CONFIG_DIR: config,
    JUPYTER_DATA_DIR: join(folder, "data"),
    JUPYTER_RUNTIME_DIR: join(folder, "runtime"),
    JUPYTERLAB_SETTINGS_DIR: join(folder, "settings"),
    JUPYTERLAB_WORKSPACES_DIR: join(folder, "workspaces"),
    IPYTHONDIR: join(folder, "ipython"),
    JUPYTER_PLATFORM_DIRS: "1",
    TUNEBOOK_HISTORY: join(folder, "history.jsonl"),
  };
}

/**
 * Starts `jupyter lab` over a folder of notebooks and a browser before it.
 * @param {string} notebooks the folder that is served
 * @param {{ disabledExtensions?: string[] }} [options]
 */
export async function startLab(notebooks, options = {}) {
  const executablePath = chromiumPath();
  const { chromium } = await import("playwright-core");
  const folder = mkdtempSync(join(tmpdir(), "tunebook-lab-"));
  const token = randomBytes(16).toString("hex");
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const server = serve(notebooks, port, token, jupyterEnvironment(folder, options));
  let browser;
  const close = async () => {
    await browser?.close().catch(() => {});
    await stop(server.child);
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    await server.answers(`${base}/api/status?token=${token}`);
    browser = await chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath,
      headless: true,
      args: browserFlags,
      viewport: { width: 1280, height: 1600 },
    });
  } catch (error) {
    await close();
    throw error;
  }
  return {
    folder: notebooks,
    open: (name) => openNotebook(browser, `${base}/lab/tree/${encodeURIComponent(name)}?token=${token}&reset`),
    close,
  };
}

function serve(notebooks, port, token, env) {
  const child = spawn(
    bin("jupyter-lab"),
    [
      "--no-browser",
      "--allow-root",
      "--ServerApp.ip=127.0.0.1",
      `--ServerApp.port=${port}`,
      "--ServerApp.port_retries=0",
      `--IdentityProvider.token=${token}`,
      `--ServerApp.root_dir=${notebooks}`,
      "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
      "--LabApp.news_url=None",
      "--LabApp.extension_manager=readonly",
    ],
    // A group of its own, so that the kernels it starts go with it.
    { cwd: notebooks, env, stdio: ["ignore", "pipe", "pipe"], detached: process.platform !== "win32" },
  );
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      log = (log + chunk).slice(-20_000);
    });
  }
  const answers = async (url) => {
    for (let tries = 0; tries < 240; tries++) {
      if (child.exitCode !== null) throw new Error(`jupyter lab ended with code ${child.exitCode}:\n${log}`);
      const ok = await fetch(url).then(
        (response) => response.ok,
        () => false,
      );
      if (ok) return;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    throw new Error(`jupyter lab did not answer within a minute:\n${log}`);
  };
  return { child, answers };
}

/** Ends a server and its kernels: politely, then for good. */
async function stop(child) {
  const signal = (name) => {
    try {
      if (process.platform === "win32") child.kill(name);
      else process.kill(-child.pid, name);
    } catch {
      // Already gone.
    }
  };
  const ended = child.exitCode !== null ? Promise.resolve() : new Promise((resolve) => child.once("exit", resolve));
  signal("SIGTERM");
  const timer = setTimeout(() => signal("SIGKILL"), 8000);
  await ended;
  clearTimeout(timer);
  signal("SIGKILL");
}

async function openNotebook(browser, url) {
  const page = await browser.newPage();
  await page.goto(url, { waitUntil: "domcontentloaded", timeout: 120_000 });
  await page.locator(".jp-Notebook .jp-Cell").first().waitFor({ timeout: 120_000 });
  // Before the session exists the indicator says idle too, beside "No Kernel".
  await page.waitForFunction(
    () =>
      document.querySelector(".jp-Notebook-ExecutionIndicator")?.getAttribute("data-status") === "idle" &&
      !/No Kernel|Initializing/.test(document.querySelector(".jp-KernelName")?.textContent ?? "No Kernel"),
    null,
    { timeout: 120_000, polling: 250 },
  );
  return {
    page,
    /** Run → Run All Cells, then waits until no cell is pending and the kernel is idle. */
    async runAll(timeout = 300_000) {
      await menu(page, "Run", "runmenu:run-all");
      await page.waitForFunction(
        () => {
          const prompts = [...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputPrompt")];
          const texts = prompts.map((prompt) => prompt.textContent ?? "");
          const idle =
            document.querySelector(".jp-Notebook-ExecutionIndicator")?.getAttribute("data-status") === "idle";
          return idle && texts.some((text) => /\[\d+\]/.test(text)) && !texts.some((text) => text.includes("*"));
        },
        null,
        { timeout, polling: 250 },
      );
      await page.waitForTimeout(1000); // drawings settle
    },
    /** File → Save Notebook, then waits until it stands on the disk. */
    async save() {
      await menu(page, "File", "docmanager:save");
      await page.locator(".jp-mod-current.jp-mod-dirty").waitFor({ state: "detached", timeout: 30_000 });
    },
    /** The whole notebook in one picture. */
    async screenshot(path) {
      await stretch(page, 8000);
      await page.screenshot({ path });
    },
    /** The whole notebook in pictures that can be looked at one by one: PREFIX-1.png, PREFIX-2.png …; gives their paths. */
    async pictures(prefix, part = 1400) {
      const height = await stretch(page, 16_000); // Chromium draws no more
      const paths = [];
      for (let y = 0; y < height; y += part) {
        const path = `${prefix}-${paths.length + 1}.png`;
        await page.screenshot({ path, clip: { x: 0, y, width: 1280, height: Math.min(part, height - y) } });
        paths.push(path);
      }
      return paths;
    },
  };
}

/** Makes the window as high as the notebook in it, and gives that height. */
async function stretch(page, most) {
  await page.setViewportSize({ width: 1280, height: 600 });
  const height = await page.evaluate(() => {
    const panel = document.querySelector(".jp-WindowedPanel-outer") ?? document.querySelector(".jp-Notebook");
    return panel.scrollHeight;
  });
  const all = Math.min(Math.max(height + 160, 800), most);
  await page.setViewportSize({ width: 1280, height: all });
  await page.waitForTimeout(500);
  return all;
}

/** Clicks an entry of the menu bar by its command. */
async function menu(page, title, command) {
  await page.getByRole("menuitem", { name: title, exact: true }).click();
  await page.locator(`.lm-Menu-item[data-command="${command}"]`).click();
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
