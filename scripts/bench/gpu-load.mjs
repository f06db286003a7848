// The part "load" of scripts/bench-gpu.mjs: a checkpoint of a Llama's shape in memory (16 GB for 8B), loaded and quantised to NF4, beside transformers.
import { spawnSync } from "node:child_process";
import { rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeCheckpoint } from "./checkpoint.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

function measured(command, args, env) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: "utf8",
  });
  const line = (stdout ?? "").split("\n").findLast((l) => l.startsWith("{"));
  if (status === 0 && line) return JSON.parse(line);
  console.error(`${command} ${args[0]} failed (${status ?? error}):\n${(stderr ?? "").slice(-3000)}`);
  return undefined;
}

/**
 * @param {object} model the config of the shape
 * @param {{ folder: string, device: string, python?: string, repeats: number }} options `folder` is written and removed; without `python` no peer is measured
 * @returns {Promise<object[]>} rows for the table
 */
export async function benchLoad(model, { folder, device, python, repeats }) {
  const rows = [];
  try {
    const begun = performance.now();
    const bytes = await writeCheckpoint(folder, model);
    const gb = bytes / 1e9;
    console.log(`    ${gb.toFixed(2)} GB written to ${folder} in ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    const add = (system, r, i) => {
      const s = r?.seconds[i];
      if (s === undefined) return rows.push({ system, what: "load", failed: true });
      const round = (x) => (x === undefined ? undefined : Number(x.toFixed(2)));
      return rows.push({
        system,
        what: `load ${i + 1}`,
        seconds: round(s),
        "GB/s": round(gb / s),
        "peak GiB": round(r.peakGib ?? r.peak_gib),
        "host GiB": round(r.hostGib ?? r.host_gib),
      });
    };
    const request = { folder, device, repeats, quantize: { type: "nf4", doubleQuant: true, compute: "bf16" } };
    const own = measured(process.execPath, [join(root, "scripts/bench/load-worker.mjs"), JSON.stringify(request)]);
    for (let i = 0; i < (own ? repeats : 1); i++) add("tunebook", own, i);
    if (python !== undefined) {
      const peer = measured(python, [join(root, "scripts/peers/gpu_load.py"), folder, "--repeats", String(repeats)]);
      for (let i = 0; i < (peer ? repeats : 1); i++) add(peer?.peer ?? "transformers + bitsandbytes", peer, i);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return rows;
}

/** Where the checkpoint can be kept: in memory, or on a disk, whose files that were just written are in memory too when there is enough of it. */
export function memoryFolder(bytes) {
  const found = ["/dev/shm", tmpdir()].find((folder) => {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize > bytes * 1.05;
  });
  if (found !== undefined) return { folder: `${found}/tunebook-load-${process.pid}` };
  return { reason: `neither /dev/shm nor ${tmpdir()} has ${(bytes / 1e9).toFixed(1)} GB free` };
}
