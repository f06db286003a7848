import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Answer } from "../../kernel/protocol/client.js";
import { of, printed, startKernel, type TestKernel, value } from "./support.js";

/** Packs a small package; nothing is fetched. */
function pack(folder: string, name: string, version: string, files: Record<string, string>, more: object = {}): string {
  const place = join(folder, `${name}-${version}`);
  mkdirSync(place);
  writeFileSync(join(place, "package.json"), JSON.stringify({ name, version, ...more }));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(place, file), text);
  execFileSync("npm", ["pack", "--silent", "--offline", place], { cwd: folder });
  return join(folder, `${name}-${version}.tgz`);
}

describe("%npm", () => {
  let kernel: TestKernel;
  let packages: string;
  let esm: string;
  let common: string;
  before(async () => {
    packages = mkdtempSync(join(tmpdir(), "tunebook-packages-"));
    const module = { type: "module", exports: { ".": { types: "./index.d.ts", default: "./index.js" } } };
    esm = pack(
      packages,
      "pear",
      "1.0.0",
      {
        "index.js": "export const pear = (n) => n + 1;",
        "index.d.ts": "/** Adds one. */ export declare function pear(n: number): number;",
      },
      module,
    );
    common = pack(
      packages,
      "plum",
      "1.0.0",
      {
        "index.js": "exports.plum = 'blue'; exports.version = 1;",
        "index.d.ts": "export declare const plum: string; export declare const version: 1;",
      },
      { types: "index.d.ts" },
    );
    kernel = await startKernel({ npm_config_offline: "true", npm_config_cache: join(packages, "cache") });
  });
  after(async () => {
    await kernel.stop();
    rmSync(packages, { recursive: true, force: true });
  });

  const run = (code: string): Promise<Answer> => kernel.client.execute(code, { timeoutMs: 90_000 });

  it("installs beside the notebook, with progress; the next cell imports it, typed", async () => {
    const missing = await run("import { pear } from 'pear';");
    assert.match(
      String(missing.reply.content.evalue),
      /Cannot find module 'pear'.*Run %npm install pear in a cell of its own first\./,
    );
    // At run time too the package is looked for, and must not be remembered as missing.
    assert.equal((await run("%typecheck off\nawait import('pear')")).reply.content.status, "error");
    await run("%typecheck error");

    const installed = await run(`const file = ${JSON.stringify(esm)};\n%npm install {file}`);
    assert.equal(installed.reply.content.status, "ok", JSON.stringify(installed.reply.content));
    assert.match(printed(installed, "stdout"), /^Made .*package\.json\n[\s\S]*added 1 package/);
    assert.ok(existsSync(join(kernel.folder, "node_modules", "pear", "index.js")));
    assert.ok(
      "pear" in
        (JSON.parse(readFileSync(join(kernel.folder, "package.json"), "utf8")) as { dependencies: object })
          .dependencies,
    );
    const [shown] = of(installed, "display_data");
    assert.match((shown!.content.data as Record<string, string>)["text/plain"]!, /^npm install .*: … 0\.0 s$/);
    const last = of(installed, "update_display_data").at(-1)!;
    assert.match((last.content.data as Record<string, string>)["text/plain"]!, /: done [\d.]+ s/);
    assert.deepEqual(last.content.transient, shown!.content.transient);

    assert.equal(await value(kernel.client, "import { pear } from 'pear';\npear(1)"), "2");
    const typed = await run("pear('x')");
    assert.match(String(typed.reply.content.evalue), /not assignable to parameter of type 'number'/);
    const { content } = (
      await kernel.client.request("shell", "complete_request", {
        code: "import * as p from 'pear';\np.pe",
        cursor_pos: 32,
      })
    ).reply;
    assert.deepEqual(content.matches, ["pear"]);
  });

  it("sees another version of a package with its types", async () => {
    assert.equal((await run(`%npm install ${common}`)).reply.content.status, "ok");
    assert.equal(
      await value(kernel.client, "import { version as first } from 'plum';\nconst one: 1 = first; one"),
      "1",
    );
    const newer = pack(
      packages,
      "plum",
      "2.0.0",
      { "index.js": "exports.version = 2;", "index.d.ts": "export declare const version: 2;" },
      { types: "index.d.ts" },
    );
    assert.equal((await run(`%npm install ${newer}`)).reply.content.status, "ok");
    const refused = await run("import { version } from 'plum';\nconst old: 1 = version;");
    assert.match(String(refused.reply.content.evalue), /Type '2' is not assignable to type '1'/);
  });

  it("shows what npm says, and fails the cell when it fails", async () => {
    const listed = await run("%npm ls");
    assert.match(printed(listed, "stdout"), /pear@1\.0\.0/);
    const failed = await run("%npm install no-such-package-of-tunebook");
    assert.equal(failed.reply.content.status, "error");
    assert.match(
      String(failed.reply.content.evalue),
      /npm install ended with exit code \d+; what it says stands above/,
    );
    assert.match(printed(failed, "stderr"), /npm (?:error|ERR!)/);
    assert.match(
      (of(failed, "update_display_data").at(-1)!.content.data as Record<string, string>)["text/plain"]!,
      /failed/,
    );
    assert.match(String((await run("%npm")).reply.content.evalue), /What is npm to do\? Usage: %npm/);
  });

  it("takes the package.json of a folder above, as npm does", async () => {
    const folder = join(kernel.folder, "project", "notebooks");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(kernel.folder, "project", "package.json"), '{ "private": true }');
    const { launch } = await import("../../kernel/protocol/launch.js");
    const inner = await launch({
      cwd: folder,
      env: { ...process.env, npm_config_offline: "true", npm_config_cache: join(packages, "cache") },
    });
    try {
      const answer = await inner.client.execute(`%npm install ${esm}`, { timeoutMs: 90_000 });
      assert.equal(answer.reply.content.status, "ok", JSON.stringify(answer.reply.content));
      assert.ok(existsSync(join(kernel.folder, "project", "node_modules", "pear")));
      assert.ok(!existsSync(join(folder, "package.json")));
      const used = await inner.client.execute("import { pear } from 'pear'; pear(4)", { timeoutMs: 20_000 });
      assert.equal((of(used, "execute_result")[0]!.content.data as Record<string, string>)["text/plain"], "5");
    } finally {
      await inner.stop();
    }
  });
});
