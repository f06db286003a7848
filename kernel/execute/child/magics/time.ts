import type { Cell } from "../cell.js";

/** Begins a measurement; the function that comes back tells it and passes on the value. */
export function startTimer(cell: Cell): <T>(value?: T) => T | undefined {
  const cpu = process.cpuUsage();
  const started = performance.now();
  return (value) => {
    const wall = (performance.now() - started) / 1_000;
    const { user, system } = process.cpuUsage(cpu);
    const parts = [user, system, user + system].map((micros) => duration(micros / 1e6));
    cell.print(
      "stdout",
      `CPU times: user ${parts[0]}, system ${parts[1]}, total ${parts[2]}\nWall time: ${duration(wall)}\n`,
    );
    return value;
  };
}

const ENOUGH_S = 0.2;
const RUNS = 7;

/** Runs a function many times, in runs of so many loops, and tells the mean of a loop. */
export async function timeIt(
  cell: Cell,
  body: () => unknown,
  waits: boolean,
  loops: number | undefined,
  runs: number = RUNS,
): Promise<void> {
  const measure = async (count: number): Promise<number> => {
    const started = performance.now();
    if (waits) for (let i = 0; i < count; i++) await body();
    else for (let i = 0; i < count; i++) body();
    return (performance.now() - started) / 1_000;
  };
  let count = loops ?? 1;
  // As many loops, of 1, 2, 5, 10 …, as take long enough to be measured.
  for (let step = 0; loops === undefined && (await measure(count)) < ENOUGH_S && count < 1e9; step++) {
    count = [2, 5, 10][step % 3]! * 10 ** Math.floor(step / 3);
  }
  const times: number[] = [];
  for (let run = 0; run < runs; run++) times.push((await measure(count)) / count);
  const mean = times.reduce((sum, one) => sum + one, 0) / runs;
  const spread = Math.sqrt(times.reduce((sum, one) => sum + (one - mean) ** 2, 0) / runs);
  const many = (number: number, word: string): string =>
    `${number.toLocaleString("en-US")} ${word}${number === 1 ? "" : "s"}`;
  cell.print(
    "stdout",
    `${duration(mean)} ± ${duration(spread)} a loop (mean and standard deviation of ${many(runs, "run")} of ${many(count, "loop")})\n`,
  );
}

/** Seconds with a fitting unit and three digits. */
export function duration(seconds: number): string {
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${(seconds % 60).toFixed(1)} s`;
  const units: [size: number, name: string][] = [
    [1, "s"],
    [1e-3, "ms"],
    [1e-6, "µs"],
    [1e-9, "ns"],
  ];
  const [size, name] = units.find(([least]) => seconds >= least) ?? [1e-9, "ns"];
  return `${Number((seconds / size).toPrecision(3))} ${name}`;
}
