import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formatBytes } from "../../src/display/format.js";
import { LiveDisplay, ProgressBar, progress } from "../../src/display/index.js";
import { InterruptedError } from "../../src/errors.js";
import { inCell, withInterrupt } from "./host.js";

function sink(isTTY: boolean): { isTTY: boolean; columns: number; text: string; write(text: string): void } {
  return {
    isTTY,
    columns: 80,
    text: "",
    write(text: string) {
      this.text += text;
    },
  };
}

test("in a cell: first and last shown, in between at most ten a second, one display", async () => {
  await inCell((host) => {
    let now = 0;
    const bar = new ProgressBar({ label: "Training", total: 1000, unit: "steps", now: () => now });
    host.current = "cell-2";
    for (let i = 1; i <= 1000; i++) {
      now += 1;
      bar.update(i, { loss: 1 / i });
    }
    bar.finish();
    assert.ok(host.published.length >= 11 && host.published.length <= 13, String(host.published.length));
    const [first, ...rest] = host.published;
    assert.equal(first?.options.update, false);
    assert.ok(
      rest.every(({ options }) => options.update && options.id === first?.options.id && options.cell === "cell-1"),
    );
    assert.match(String(host.texts[0]), /^Training │ +│ 0\/1,000 steps · 0%/);
    assert.match(
      String(host.texts.at(-1)),
      /█{24}│ 1,000\/1,000 steps · 100% · 1,000 steps\/s · 1\.0 s · loss 0\.001$/,
    );
    assert.match(String(host.texts[5]), /left/);
    assert.match(String(host.published.at(-1)?.bundle["text/html"]), /Training/);
  });
});

test("in a cell: an update that came too soon is shown a moment later", async () => {
  await inCell(async (host) => {
    const bar = new ProgressBar({ total: 10 });
    bar.update(7);
    assert.equal(host.published.length, 1);
    await sleep(250);
    assert.equal(host.published.length, 2);
    assert.match(String(host.texts[1]), /7\/10/);
    bar.fail("out of memory");
    bar.update(9);
    bar.finish();
    assert.equal(host.published.length, 3);
    assert.match(String(host.texts[2]), /^✗ .*7\/10 it .* out of memory$/);
  });
});

test("rates: slow ones as seconds for one, bytes without a unit of their own", () => {
  const rateOf = (options: ConstructorParameters<typeof ProgressBar>[0], done: number): string => {
    let now = 0;
    const bar = new ProgressBar({ total: done, stream: sink(false), now: () => now, ...options });
    now = 8000;
    bar.update(done);
    bar.finish();
    return bar.toText();
  };
  assert.match(rateOf({ unit: "steps" }, 4), /4\/4 steps · 100% · 2 s\/step · /);
  assert.match(rateOf({ unit: "steps" }, 16), /16\/16 steps · 100% · 2 steps\/s · /);
  assert.match(
    rateOf({ unit: "", format: formatBytes }, 16 * 1024 ** 2),
    /16\.0 MiB\/16\.0 MiB · 100% · 2\.00 MiB\/s · /,
  );
});

test("on a terminal: one line that is written over", () => {
  const stream = sink(true);
  let now = 0;
  const bar = new ProgressBar({ label: "x", total: 4, stream, now: () => now });
  for (let i = 1; i <= 4; i++) {
    now += 200;
    bar.update(i);
  }
  bar.finish();
  const lines = stream.text.split("\r\u001b[2K");
  assert.equal(lines.length, 7);
  assert.equal(stream.text.match(/\n/g)?.length, 1);
  assert.ok(lines.every((line) => line.length < 81));
});

test("in a pipe: a line now and then, and the last", () => {
  const stream = sink(false);
  let now = 0;
  const bar = new ProgressBar({ label: "x", total: 100, stream, now: () => now });
  for (let i = 1; i <= 100; i++) {
    now += 120;
    bar.update(i);
  }
  bar.finish("done");
  assert.equal(stream.text.trim().split("\n").length, 3);
  assert.match(stream.text, /done\n$/);
});

test("slow rates, amounts with units, hostile labels", () => {
  let now = 0;
  const stream = sink(true);
  const bar = new ProgressBar({ label: "a\nb\u001b[2J", total: 3, stream, now: () => now });
  now = 4000;
  bar.update(1);
  assert.match(bar.toText(), /^a⏎b␛\[2J .* 4 s\/it · 4\.0 s · 8\.0 s left$/);
  bar.finish();
});

test("progress over iterables", async () => {
  await inCell(async (host) => {
    assert.deepEqual([...progress([1, 2, 3], { label: "sync" })], [1, 2, 3]);
    assert.match(String(host.texts.at(-1)), /3\/3/);
    const both = Object.assign(["a"], { [Symbol.asyncIterator]: () => ["b"][Symbol.iterator]() });
    assert.deepEqual([...progress(both)], ["a"]);
    async function* slow(): AsyncGenerator<number> {
      yield 1;
      yield 2;
    }
    const seen: number[] = [];
    for await (const item of progress(slow(), { total: 2 })) seen.push(item);
    assert.deepEqual(seen, [1, 2]);
    for (const item of progress([1, 2, 3])) if (item === 2) break;
    assert.match(String(host.texts.at(-1)), /✗ .*1\/3 it.*stopped early/);
    assert.throws(() => {
      for (const _ of progress(
        (function* () {
          yield 1;
          throw new Error("broken source");
        })(),
      ));
    }, /broken source/);
    assert.match(String(host.texts.at(-1)), /broken source/);
  });
});

test("progress stops when the cell is interrupted", async () => {
  await inCell(() =>
    withInterrupt((flag) => {
      let rounds = 0;
      assert.throws(() => {
        for (const item of progress([1, 2, 3, 4])) {
          rounds = item;
          flag[0] = 1;
        }
      }, InterruptedError);
      assert.equal(rounds, 1);
    }),
  );
});

test("a live display is throttled, and its last state always arrives", async () => {
  await inCell(async (host) => {
    const live = new LiveDisplay({ interval: 60 });
    let made = 0;
    const end = performance.now() + 200;
    let i = 0;
    while (performance.now() < end) {
      i += 1;
      const text = `state ${i}`;
      live.show(() => {
        made += 1;
        return text;
      });
      await sleep(2);
    }
    const last = i;
    await live.finish();
    assert.equal(host.texts.at(-1), `state ${last}`);
    assert.ok(host.published.length >= 3 && host.published.length <= 7, String(host.published.length));
    assert.equal(made, host.published.length);
    live.show(() => "too late");
    assert.equal(host.texts.at(-1), `state ${last}`);
  });
});

test("a live display that draws slowly takes a small share of the time", async () => {
  await inCell(async (host) => {
    const live = new LiveDisplay({ interval: 1, share: 0.2 });
    const picture = { [Symbol.for("Jupyter.display")]: () => sleep(50, { "text/plain": "picture" }) };
    const end = performance.now() + 600;
    while (performance.now() < end) {
      live.show(() => picture);
      await sleep(5);
    }
    assert.ok(host.published.length <= 4, String(host.published.length));
    await live.finish(() => "end");
    assert.equal(host.texts.at(-1), "end");
  });
});
