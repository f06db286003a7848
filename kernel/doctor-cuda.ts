import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "./doctor.js";
import { which } from "./install.js";

/** What the CUDA backend stands on: driver, GPU, the backend itself, its compiler, and the libraries that it opens. */
export function cudaFindings(root: string): Finding[] {
  const gpus = gpuFindings();
  const hasGpu = gpus[0]?.state === "ok";
  return [...gpus, backend(root, hasGpu), compiler(), cublas(hasGpu), cudnn()];
}

function gpuFindings(): Finding[] {
  const name = "NVIDIA driver";
  const smi = which("nvidia-smi");
  if (smi === undefined) {
    const loaded = existsSync("/proc/driver/nvidia/version")
      ? "nvidia-smi was not found, but a driver is loaded"
      : "not found";
    return [
      {
        name,
        state: "note",
        found: loaded,
        remedy: "Only needed for an NVIDIA GPU; the CPU backend works without it.",
      },
    ];
  }
  const query = ["--query-gpu=driver_version,name,compute_cap,memory.total", "--format=csv,noheader,nounits"];
  const asked = spawnSync(smi, query, { encoding: "utf8", timeout: 20_000 });
  const rows = asked.stdout
    ?.trim()
    .split("\n")
    .map((line) => line.split(",").map((cell) => cell.trim()))
    .filter((cells) => cells.length === 4);
  if (asked.status !== 0 || rows === undefined || rows.length === 0) {
    const why = `${asked.stdout ?? ""}${asked.stderr ?? ""}`.trim().split("\n")[0] ?? "no answer";
    return [
      {
        name,
        state: "note",
        found: `nvidia-smi names no GPU: ${why}`,
        remedy: "Install NVIDIA's driver, or give this container a GPU.",
      },
    ];
  }
  return [
    { name, state: "ok", found: rows[0]?.[0] ?? "" },
    ...rows.map(([, gpu, capability, mebibytes]): Finding => {
      const memory = Number(mebibytes) > 0 ? `${(Number(mebibytes) / 1024).toFixed(1)} GiB` : `${mebibytes} MiB`;
      return { name: "GPU", state: "ok", found: `${gpu}, compute capability ${capability}, ${memory}` };
    }),
  ];
}

// In a process of its own, as a driver that does not fit must not end the report.
function backend(root: string, hasGpu: boolean): Finding {
  const name = "CUDA backend";
  const build = "Install CUDA's compiler (nvcc 12 or newer) and run `npm run build`.";
  if (!existsSync(join(root, "build", "tunebook_cuda.so")))
    return hasGpu
      ? { name, state: "missing", found: "build/tunebook_cuda.so is not there", remedy: build }
      : { name, state: "note", found: "not built" };
  const code = `const a = require(process.argv[1]); a.open((kind, message) => new Error(message));
    try { console.log(JSON.stringify(a.openDevice("cuda"))); } catch (e) { console.log(JSON.stringify({ why: e.message })); } process.exit(0);`;
  const env = { ...process.env, TUNEBOOK_FAKE_CUDA: "0" };
  const addon = join(root, "build", "tunebook.node");
  const asked = spawnSync(process.execPath, ["-e", code, addon], { encoding: "utf8", timeout: 60_000, env });
  let opened: { name?: string; why?: string; driver?: string; runtime?: string; limit?: number };
  try {
    opened = JSON.parse(asked.stdout);
  } catch {
    opened = { why: asked.signal ?? asked.stderr.trim().split("\n").at(-1) ?? "no answer" };
  }
  if (opened.why === undefined) {
    const usable = `${((opened.limit ?? 0) / 2 ** 30).toFixed(1)} GiB usable`;
    return {
      name,
      state: "ok",
      found: `opens ${opened.name}, ${usable}; the driver runs CUDA ${opened.driver}, built with ${opened.runtime}`,
    };
  }
  if (!hasGpu) return { name, state: "note", found: `built; ${opened.why}` };
  return {
    name,
    state: "missing",
    found: opened.why,
    remedy: "The line above says what does not fit; `npm run build` builds it for this machine.",
  };
}

function compiler(): Finding {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH, "/usr/local/cuda"].filter((home) => home !== undefined);
  const nvcc = which("nvcc") ?? homes.map((home) => join(home, "bin/nvcc")).find((file) => existsSync(file));
  if (nvcc === undefined)
    return {
      name: "nvcc",
      state: "note",
      found: "not found",
      remedy: "Only needed to build the CUDA backend: install the CUDA toolkit.",
    };
  const version = /release ([\d.]+)/.exec(spawnSync(nvcc, ["--version"], { encoding: "utf8" }).stdout ?? "")?.[1];
  return { name: "nvcc", state: "ok", found: `${version ?? "?"}, ${nvcc}` };
}

function cublas(hasGpu: boolean): Finding {
  const name = "cuBLASLt";
  const asked = process.env.TUNEBOOK_CUBLASLT;
  const file = asked
    ? existsSync(asked)
      ? asked
      : undefined
    : find(/^libcublasLt\.so\.1[23]$/, ["cublas", "cu13", "cu12"]);
  if (file !== undefined) return { name, state: "ok", found: file };
  const remedy =
    "For matrix products on the GPU: `pip install nvidia-cublas`, or the CUDA toolkit; TUNEBOOK_CUBLASLT names the file.";
  const found = asked ? `TUNEBOOK_CUBLASLT is ${asked}, which does not exist` : "not found";
  return hasGpu ? { name, state: "missing", found, remedy } : { name, state: "note", found };
}

function cudnn(): Finding {
  const file = find(/^libcudnn\.so\.\d+$/, ["cudnn", "cu13", "cu12"]);
  return {
    name: "cuDNN",
    state: file ? "ok" : "note",
    found: file ?? "not found (optional: attention has kernels of its own)",
  };
}

/** A library of the dynamic linker, of the CUDA toolkit, or of NVIDIA's Python packages: the places where the backend looks too. */
function find(name: RegExp, packages: readonly string[]): string | undefined {
  for (const folder of folders(packages)) {
    const file = list(folder).find((one) => name.test(one));
    if (file !== undefined) return join(folder, file);
  }
  const known = spawnSync("/sbin/ldconfig", ["-p"], { encoding: "utf8" }).stdout ?? "";
  for (const line of known.split("\n")) {
    const [library, file] = line.split("=>").map((part) => part.trim());
    if (file !== undefined && name.test(library?.split(" ")[0] ?? "")) return file;
  }
  return undefined;
}

function folders(packages: readonly string[]): string[] {
  const variables = (...names: string[]): string[] =>
    names.flatMap((one) => (process.env[one] ?? "").split(":")).filter((one) => one !== "");
  const toolkits = list("/usr/local")
    .filter((one) => one.startsWith("cuda"))
    .map((one) => join("/usr/local", one));
  const paths = variables("PATH").flatMap((folder) => (folder.endsWith("/bin") ? [folder.slice(0, -4)] : []));
  const pythons = [...variables("VIRTUAL_ENV", "CONDA_PREFIX"), ...paths, join(process.env.HOME ?? "", ".local")];
  return [
    ...variables("LD_LIBRARY_PATH"),
    ...variables("CUDA_HOME", "CUDA_PATH").map((home) => join(home, "lib64")),
    ...pythons.flatMap((prefix) =>
      list(join(prefix, "lib"))
        .filter((one) => /^python3/.test(one))
        .flatMap((python) =>
          ["site-packages", "dist-packages"].map((one) => join(prefix, "lib", python, one, "nvidia")),
        )
        .flatMap((nvidia) => packages.map((one) => join(nvidia, one, "lib"))),
    ),
    ...toolkits.flatMap((home) => [join(home, "lib64"), join(home, "targets/x86_64-linux/lib")]),
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
  ];
}

function list(folder: string): string[] {
  try {
    return statSync(folder).isDirectory() ? readdirSync(folder) : [];
  } catch {
    return [];
  }
}
