import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { createScope } from "../../kernel/compile/scope.js";
import { CompileError, CompileService } from "../../kernel/compile/service.js";
import { Notebook } from "./compile-notebook.js";

describe("many cells", () => {
  it("keeps little of each cell, and the types of all", () => {
    const notebook = new Notebook();
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    let heap = 0;
    for (let i = 0; i < 300; i++) {
      const { cell, diagnostics } = notebook.compile(
        `const x${i} = [1, ${i}].map((v) => v * 2); class C${i} { v = x${i} } function f${i}(c = new C${Math.max(0, i - 1)}()) { return c.v.length + x${Math.max(0, i - 1)}.length }`,
      );
      assert.deepEqual(diagnostics, []);
      if (i === 59) {
        collect();
        heap = process.memoryUsage().heapUsed;
      }
      notebook.compiler.commit(cell);
    }
    collect();
    const grown = (process.memoryUsage().heapUsed - heap) / 1e6;
    assert.ok(grown < 20, `${grown.toFixed(1)} MB for 240 cells`);
    assert.deepEqual(notebook.faults("const n: number = f299() + f0() + x150[0]!;"), []);
  });

  it("keeps a chain of inferred types short", () => {
    const notebook = new Notebook();
    const declare = (code: string): void => notebook.compiler.commit(notebook.compile(code).cell);
    declare("const step0 = { n: 0 };");
    for (let i = 1; i <= 60; i++) declare(`const step${i} = { n: step${i - 1}.n + 1 };`);
    assert.deepEqual(notebook.faults("const n: number = step60.n;"), []);
    const files = notebook.compiler.project.program().getSourceFiles();
    // The last cell's own declarations say its type: none of the sixty before it is read again.
    assert.equal(files.filter(({ fileName }) => fileName.includes("__tunebook__cell-")).length, 1);
  });
});

describe("the compile service", () => {
  const request = (code: string, cell: string): Parameters<CompileService["compile"]>[0] => ({
    code,
    cell,
    typecheck: "error",
    cwd: process.cwd(),
  });

  it("answers from its own thread", async () => {
    const service = new CompileService();
    const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
      ...parts: string[]
    ) => (scope: object) => Promise<{ value: unknown } | undefined>;
    const compiled = await service.compile(request("let a = 2; a * 3", "cell-1"));
    service.commit("cell-1");
    assert.deepEqual(compiled.declares, ["a"]);
    assert.deepEqual(await new AsyncFunction("$scope", "$import", "$cell", compiled.js)(createScope()), { value: 6 });
    await assert.rejects(service.compile(request("a.nope", "cell-2")), (error) => {
      assert.ok(error instanceof CompileError);
      assert.equal(error.diagnostics[0]!.code, 2339);
      return true;
    });
    assert.deepEqual((await service.complete("a.toF", 5)).matches, ["toFixed"]);
    assert.ok((await service.inspect("a", 1, 0)).found);
    assert.equal((await service.isComplete("{")).status, "incomplete");
    assert.match(
      (await service.transpile("/x/a.ts", "export const a: number = 1; import './b.js'")).js,
      /System\.register/,
    );
    await assert.rejects(service.transpile("/x/a.ts", "const = 1"), { name: "SyntaxError", message: /a\.ts:1:7/ });
    service.reset();
    await assert.rejects(service.compile(request("a", "cell-3")), { name: "CompileError" });
    await service.dispose();
    await assert.rejects(service.isComplete("1"), /disposed/);
  });

  it("knows its cells again when its thread was lost", async () => {
    const post = Worker.prototype.postMessage;
    let thread: Worker | undefined;
    Worker.prototype.postMessage = function (this: Worker, ...given: Parameters<typeof post>) {
      thread = this;
      post.apply(this, given);
    };
    try {
      const service = new CompileService();
      await service.compile(request("const kept = 1;", "cell-1"));
      service.commit("cell-1");
      const lost = service.compile(request("kept + 1", "cell-2"));
      await Promise.all([thread!.terminate(), assert.rejects(lost, /thread was lost/)]);
      assert.deepEqual((await service.compile(request("const more: number = kept;", "cell-3"))).diagnostics, []);
      await service.dispose();
    } finally {
      Worker.prototype.postMessage = post;
    }
  });
});
