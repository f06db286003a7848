import type { OpCase, TensorSpec } from "./case.js";
import { act, f32, f32InOut, f32Out, out, positive } from "./specs.js";

/** Head norms of a warp, model widths, odd rows, many rows (several a worker), rows beyond shared memory. */
const SHAPES: [number, number][] = [
  [37, 576],
  [70, 128],
  [5, 33],
  [3, 4096],
  [2500, 64],
  [4500, 72],
  [2, 1001],
  [1, 1],
  [2, 20000],
  [1, 60000],
];
const weights = (cols: number): [string, TensorSpec][] => [
  ["weight as activations", act(cols)],
  ["float32 weight", f32(cols)],
];

const rms: OpCase[] = SHAPES.flatMap(([rows, cols]) =>
  weights(cols).flatMap(([kind, weight]): OpCase[] => {
    const x = act(rows, cols);
    const y = out(rows, cols);
    const size = `${rows}x${cols}, ${kind}`;
    const rstd = f32Out(rows);
    const forward = { op: "rmsNorm" as const, ints: [rows, cols], floats: [1e-5] };
    const backward = { op: "rmsNormBackward" as const, ints: [rows, cols], floats: [] };
    const scale: TensorSpec = { ...f32(rows), fill: "positive" };
    return [
      { name: `rms_norm ${size}`, tensors: [x, null, weight, y, null, rstd], ...forward },
      { name: `rms_norm ${size}, residual`, tensors: [x, x, weight, y, y, rstd], ...forward },
      { name: `rms_norm ${size}, residual not kept`, tensors: [x, x, weight, y, null, rstd], ...forward },
      { name: `rms_norm_backward ${size}`, tensors: [x, x, weight, scale, null, y, null], ...backward },
      {
        name: `rms_norm_backward ${size}, extra, dweight`,
        tensors: [x, x, weight, scale, x, y, f32InOut(cols)],
        ...backward,
      },
    ];
  }),
);

const layer: OpCase[] = SHAPES.flatMap(([rows, cols]) => {
  const x = positive(rows, cols);
  const y = out(rows, cols);
  const stats = [f32Out(rows), f32Out(rows)];
  const forward = { op: "layerNorm" as const, ints: [rows, cols], floats: [1e-5] };
  const backward = { op: "layerNormBackward" as const, ints: [rows, cols], floats: [] };
  const mean = f32(rows);
  const rstd: TensorSpec = { ...f32(rows), fill: "positive" };
  const dy = act(rows, cols);
  const sums = f32InOut(cols);
  return [
    { name: `layer_norm ${rows}x${cols}`, tensors: [x, act(cols), act(cols), y, ...stats], ...forward },
    {
      name: `layer_norm ${rows}x${cols}, float32 weight alone`,
      tensors: [x, f32(cols), null, y, ...stats],
      ...forward,
    },
    { name: `layer_norm ${rows}x${cols}, plain`, tensors: [x, null, null, y, ...stats], ...forward },
    {
      name: `layer_norm_backward ${rows}x${cols}`,
      tensors: [dy, x, act(cols), mean, rstd, y, sums, sums],
      ...backward,
    },
    {
      name: `layer_norm_backward ${rows}x${cols}, dbias alone`,
      tensors: [dy, x, f32(cols), mean, rstd, y, null, sums],
      ...backward,
    },
    {
      name: `layer_norm_backward ${rows}x${cols}, plain`,
      tensors: [dy, x, null, mean, rstd, y, null, null],
      ...backward,
    },
  ] as OpCase[];
});

export const cases: OpCase[] = [...rms, ...layer];
