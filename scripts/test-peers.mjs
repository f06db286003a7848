// npm run test:peers: makes the golden files anew with the Python packages and compares them with the committed
// ones; then lets Python read what tunebook wrote. Needs Python 3.11 or newer. Ends with "N passed, N failed".
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setup, step } from "./setup.mjs";
import { bin, ensureVenv } from "./venv.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const golden = join(root, "test", "fixtures", "golden");
const counts = { passed: 0, failed: 0 };

/** Runs a program and prints what it says; its closing counts are added to ours, its failure without them is one failure. */
function part(title, command, args) {
  step(title);
  const { status, stdout, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, HF_HUB_OFFLINE: "1", PYTHONWARNINGS: "ignore", TOKENIZERS_PARALLELISM: "false" },
    maxBuffer: 2 ** 26,
  });
  const closing = /^(\d+) passed, (\d+) failed$/m.exec(stdout ?? "");
  console.log((stdout ?? "").replace(closing?.[0] ?? "\0", "").trimEnd());
  counts.passed += Number(closing?.[1] ?? 0);
  counts.failed += Number(closing?.[2] ?? 0);
  if (status === 0 || Number(closing?.[2] ?? 0) > 0) return status === 0;
  console.log(`not ok ${title}: ${error ? error.message : `ended with code ${status}`}`);
  counts.failed++;
  return false;
}

const python = (script, ...args) => [bin("python"), [join("scripts", "peers", script), ...args]];

async function main() {
  setup();
  step("preparing the Python packages");
  await ensureVenv("peers");
  const folder = mkdtempSync(join(tmpdir(), "tunebook-peers-"));
  try {
    const fresh = join(folder, "golden");
    if (part("making the golden files anew", ...python("make_golden.py", fresh))) {
      part("comparing them with the committed ones", ...python("compare_golden.py", golden, fresh));
    }
    const base = join(golden, "llama-gqa");
    const adapters = join(folder, "adapters");
    const saver = join("scripts", "peers", "save-adapters.mjs");
    if (part("training and saving adapters with tunebook", process.execPath, [saver, base, adapters])) {
      part("loading them in PEFT, and merged in transformers", ...python("check_adapters.py", base, adapters));
    }
    const heads = join(folder, "heads");
    const trainer = join("scripts", "peers", "save-classifier.mjs");
    if (part("training heads for classes with tunebook", process.execPath, [trainer, base, heads])) {
      part("loading them in transformers and PEFT", ...python("check_classifier.py", base, heads));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  if (counts.failed > 0) process.exitCode = 1;
}

main().catch((error) => {
  console.error(`test:peers: ${error.stack ?? error}`);
  process.exitCode = 1;
});
