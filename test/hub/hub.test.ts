/** Downloads, from a hub that the test starts itself. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { CheckpointError, ConfigError, InterruptedError } from "../../src/errors.js";
import { type HubOptions, hubSnapshot, isRepoId } from "../../src/hub/hub.js";
import { hubModel, hubModelName } from "../../src/hub/hub-model.js";
import { loadModel } from "../../src/plan.js";
import { smallConfig } from "../facade/small.js";
import { goldenPath } from "../golden.js";
import { type FakeHub, startHub } from "./hub-server.js";

const large = randomBytes(300_000);
let hub: FakeHub;
let home: string;
let options: HubOptions;
let repo: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "tunebook-hub-"));
  hub = await startHub({
    "config.json": { bytes: Buffer.from('{"model_type":"llama"}') },
    "model.safetensors": { bytes: large, lfs: true },
    "pytorch_model.bin": { bytes: Buffer.from("pickle"), lfs: true },
    "README.md": { bytes: Buffer.from("# small") },
  });
  options = { env: { HF_HOME: home, HF_ENDPOINT: hub.url }, waits: [1, 1] };
  repo = join(home, "hub", "models--org--small");
});
afterEach(async () => {
  await hub.close();
  await rm(home, { recursive: true, force: true });
});

const small = { id: "org/small", file: undefined };
const fetchesOf = (name: string) => hub.log.filter((line) => line.includes(`/${name}`));

describe("the hub", () => {
  it("fetches what a model is made of, in the layout of the shared cache", async () => {
    const steps: [number, number][] = [];
    const folder = await hubModel(small, { ...options, onProgress: (done, total) => steps.push([done, total]) });
    assert.equal(folder, join(repo, "snapshots", hub.commit));
    assert.deepEqual((await readdir(folder)).sort(), ["config.json", "model.safetensors"]);
    assert.deepEqual(await readFile(join(folder, "model.safetensors")), large);
    assert.match(await readlink(join(folder, "model.safetensors")), /^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    assert.match(await readlink(join(folder, "config.json")), /^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/);
    assert.equal(await readFile(join(repo, "refs", "main"), "utf8"), hub.commit);
    assert.equal((await lstat(repo)).mode & 0o777, 0o700);
    const total = large.length + 22;
    assert.deepEqual(steps.at(-1), [total, total]);
    assert.ok(steps.every(([done], i) => i === 0 || done >= steps[i - 1]![0]));
    // A second call asks for the listing alone, and without a network none at all.
    hub.log.length = 0;
    await hubModel(small, options);
    assert.equal(hub.log.filter((line) => line.includes("resolve")).length, 0);
    hub.log.length = 0;
    assert.equal(await hubModel(small, { ...options, env: { ...options.env, HF_HUB_OFFLINE: "1" } }), folder);
    assert.deepEqual(hub.log, []);
    await hub.close();
    assert.equal(await hubModel(small, options), folder);
    await assert.rejects(hubModel(small, { ...options, revision: "other" }), /cannot be reached .*ECONNREFUSED/);
  });

  it("goes on where a broken connection ended, within a call and in the next one", async () => {
    hub.cuts = [undefined, 100_000, 50_000];
    await hubModel(small, options);
    // What a broken connection still held may be lost: the next request begins where the bytes that arrived end.
    const begins = fetchesOf("model.safetensors").map((line) => Number(/bytes=(\d+)-$/.exec(line)?.[1] ?? 0));
    assert.equal(begins.length, 3);
    const [first, second, third] = begins as [number, number, number];
    assert.ok(first === 0 && 0 < second && second <= 100_000, `${begins}`);
    assert.ok(second <= third && third <= second + 50_000, `${begins}`);
    await rm(repo, { recursive: true });
    hub.cuts = [undefined, 100_000, 1, 1];
    await assert.rejects(hubModel(small, options), /cannot be reached/);
    hub.log.length = 0;
    const folder = await hubModel(small, options);
    assert.deepEqual(await readFile(join(folder, "model.safetensors")), large);
    const begin = Number(/bytes=(\d+)-$/.exec(fetchesOf("model.safetensors")[0]!)?.[1]);
    assert.ok(0 < begin && begin <= 100_002, `${begin}`);
    assert.deepEqual(
      (await readdir(join(repo, "blobs"))).filter((name) => name.endsWith(".part")),
      [],
    );
  });

  it("starts again with a server that knows no ranges", async () => {
    hub.noRanges = true;
    hub.cuts = [undefined, 100_000];
    const folder = await hubModel(small, options);
    assert.deepEqual(await readFile(join(folder, "model.safetensors")), large);
  });

  it("throws away what has another hash or length than the hub lists", async () => {
    for (const name of ["model.safetensors", "config.json"]) {
      const { bytes } = hub.files.get(name)!;
      hub.wrong.set(name, Buffer.alloc(bytes.length, 7));
      await assert.rejects(hubModel(small, options), new RegExp(`${name} of org/small came damaged`));
      hub.wrong.set(name, Buffer.concat([bytes, bytes]));
      await assert.rejects(hubModel(small, options), /is longer than the/);
      hub.wrong.clear();
      const folder = await hubModel(small, options);
      assert.deepEqual(await readFile(join(folder, name)), bytes);
      await rm(repo, { recursive: true });
    }
  });

  it("stops when it is told to, and keeps what came", async () => {
    const stop = new AbortController();
    const onProgress = (done: number) => done > 1000 && stop.abort();
    hub.cuts = [undefined, 100_000];
    await assert.rejects(hubModel(small, { ...options, signal: stop.signal, onProgress }), InterruptedError);
    assert.equal((await readdir(join(repo, "blobs"))).filter((name) => name.endsWith(".part")).length, 1);
    await hubModel(small, options);
  });

  it("says what to accept and where for a gated model, and what else may be wrong", async () => {
    hub.refusal = { status: 401, code: "GatedRepo" };
    await assert.rejects(hubModel(small, options), (error: Error) => {
      assert.ok(error instanceof CheckpointError);
      for (const part of ["is gated", `${hub.url}/org/small`, `${hub.url}/settings/tokens`, "HF_TOKEN", "{ token }"])
        assert.ok(error.message.includes(part), error.message);
      return true;
    });
    hub.refusal = { status: 403, code: "GatedRepo" };
    await assert.rejects(hubModel(small, { ...options, token: "hf_x" }), /account of this token may not read it yet/);
    hub.refusal = { status: 404, code: "RevisionNotFound" };
    await assert.rejects(hubModel(small, { ...options, revision: "v9" }), /no such revision/);
    hub.refusal = { status: 401, code: "RepoNotFound" };
    await assert.rejects(hubModel(small, options), /Check the name; if it is private/);
    hub.refusal = { status: 503 };
    await assert.rejects(hubModel(small, options), /status 503.*Try again later/);
    hub.refusal = undefined;
    await assert.rejects(
      hubModel(small, { ...options, env: { ...options.env, HF_HUB_OFFLINE: "1" } }),
      /HF_HUB_OFFLINE/,
    );
    await assert.rejects(hubModel(small, { ...options, revision: "../x" }), ConfigError);
    await assert.rejects(hubModel(small, { ...options, env: { ...options.env, HF_ENDPOINT: "ftp://x" } }), ConfigError);
  });

  it("sends the token to the hub alone", async () => {
    const other = await startHub({});
    other.files = hub.files;
    hub.redirect = other.url;
    try {
      await hubModel(small, { ...options, env: { ...options.env, HF_TOKEN: "hf_env" } });
      assert.ok(hub.tokens.length > 0 && hub.tokens.every((token) => token === "Bearer hf_env"));
      assert.ok(other.tokens.length > 0 && other.tokens.every((token) => token === undefined));
    } finally {
      await other.close();
    }
  });

  it("never leaves the cache, whatever the hub lists", async () => {
    const bad = ["../../../evil.json", "/evil.json", "a\\evil.json", "c:evil.json"];
    hub.extra = bad.map((path) => ({ type: "file", path, size: 1, oid: "0".repeat(40) }));
    let seen: readonly string[] = [];
    await hubSnapshot("model", "org/small", (paths) => (seen = paths), options);
    assert.ok(!seen.some((path) => path.includes("evil")));
    hub.extra = [{ type: "file", path: "x.json", size: 1, oid: "../../../../evil" }];
    await assert.rejects(
      hubSnapshot("model", "org/small", (paths) => paths, options),
      /refused/,
    );
    hub.extra = [];
    hub.commit = "../../evil";
    await assert.rejects(hubModel(small, options), /names no commit/);
  });

  it("does not write through a link that lies in the cache, nor below another's folder", async () => {
    const victim = join(home, "victim");
    await writeFile(victim, "mine");
    await hubModel(small, options);
    const blobs = join(repo, "blobs");
    const hash = (await readdir(blobs)).find((name) => name.length === 64)!;
    await rm(join(repo, "snapshots"), { recursive: true });
    await rm(join(blobs, hash));
    await symlink(victim, join(blobs, `${hash}.part`));
    await assert.rejects(hubModel(small, options), /ELOOP/);
    assert.equal(await readFile(victim, "utf8"), "mine");
    await rm(join(blobs, `${hash}.part`));
    // Only the system's administrator can give a folder away.
    if (process.getuid?.() !== 0) return;
    await chown(repo, 12345, 12345);
    await assert.rejects(hubModel(small, options), /belongs to another user \(12345\)/);
  });

  it("tells names of models from paths", () => {
    for (const id of ["org/name", "meta-llama/Meta-Llama-3-8B", "a/b.c_d"]) assert.ok(isRepoId(id), id);
    for (const id of ["name", "a/b/c", "../x", "/a/b", "a--b/c", "a/..", "C:/x", "a/b\0", "./a"])
      assert.ok(!isRepoId(id), id);
    assert.deepEqual(hubModelName("org/name/q/x.gguf"), { id: "org/name", file: "q/x.gguf" });
    assert.equal(hubModelName("org/name/x.bin"), undefined);
  });

  it("asks which file is meant where there are several, and what a repository holds where none fits", async () => {
    hub.files = new Map([
      ["a-Q8_0.gguf", { bytes: Buffer.from("a"), lfs: true }],
      ["b-F16.gguf", { bytes: Buffer.from("b"), lfs: true }],
    ]);
    await assert.rejects(hubModel(small, options), /2 GGUF files .*loadModel\("org\/small\/a-Q8_0.gguf"\)/);
    const path = await hubModel({ id: "org/small", file: "b-F16.gguf" }, options);
    assert.equal(await readFile(path, "utf8"), "b");
    await assert.rejects(hubModel({ id: "org/small", file: "c.gguf" }, options), /no file c\.gguf/);
    hub.files = new Map([["pytorch_model.bin", { bytes: Buffer.from("a"), lfs: true }]]);
    await assert.rejects(hubModel(small, options), /no weights that are read/);
  });

  it("loads a model by its name", async () => {
    const names = ["config.json", "model.safetensors"];
    const files = names.map(async (name) => [
      name,
      { bytes: await readFile(join(goldenPath("llama-gqa"), name)), lfs: true },
    ]);
    hub.files = new Map(Object.entries(Object.fromEntries(await Promise.all(files))));
    const { HF_ENDPOINT: before, HF_HUB_OFFLINE: offline } = process.env;
    process.env.HF_ENDPOINT = hub.url;
    delete process.env.HF_HUB_OFFLINE;
    try {
      const cacheDir = join(home, "own");
      await mkdir(cacheDir);
      await chmod(cacheDir, 0o700);
      using model = await loadModel("org/small", { cacheDir, token: "hf_x", revision: "main" });
      assert.equal(model.name, "small");
      assert.equal((await model.logits([[1, 2, 3]])).length, 3 * 97);
      assert.deepEqual(await readdir(cacheDir), ["models--org--small"]);
    } finally {
      if (before === undefined) delete process.env.HF_ENDPOINT;
      else process.env.HF_ENDPOINT = before;
      if (offline !== undefined) process.env.HF_HUB_OFFLINE = offline;
    }
  });

  it("fetches an adapter's two files, loads it, and says what a repository lacks", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tunebook-adapter-"));
    const { HF_ENDPOINT } = process.env;
    try {
      process.env.HF_ENDPOINT = hub.url;
      const random = () => loadModel(smallConfig, { weights: "random", seed: 1 });
      const model = await random().addLora({ rank: 4, init: "gaussian", seed: 2 });
      await model.save(folder);
      const files = ["adapter_config.json", "adapter_model.safetensors"];
      await assert.rejects(
        async () => await random().loadAdapter("org/small", { cacheDir: home, progress: false }),
        (e: Error) =>
          e instanceof CheckpointError &&
          /adapter_config\.json and adapter_model\.safetensors is missing, found .*There is no folder/.test(e.message),
      );
      for (const name of files)
        hub.files.set(name, { bytes: await readFile(join(folder, name)), lfs: /safetensors$/.test(name) });
      hub.log.length = 0;
      const again = await random().loadAdapter("org/small", { cacheDir: home, progress: false, name: "fetched" });
      assert.deepEqual(await again.logits([[1, 2, 3]]), await model.logits([[1, 2, 3]]));
      assert.equal(fetchesOf("adapter_").length, 2);
      assert.equal(fetchesOf("config.json").length, 0, "only the adapter is fetched");
      await assert.rejects(
        model.loadAdapter("no such/adapter/here", { name: "other" }),
        /is no folder \(looked at .*organisation\/name/,
      );
      model.dispose();
      again.dispose();
    } finally {
      if (HF_ENDPOINT === undefined) delete process.env.HF_ENDPOINT;
      else process.env.HF_ENDPOINT = HF_ENDPOINT;
      await rm(folder, { recursive: true });
    }
  });
});
