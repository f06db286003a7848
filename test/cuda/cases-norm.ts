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
  const forward = { op: "layerNorm" as const, ints: [rows, cols, 0, 0], floats: [1e-5, 0] };
  const backward = { op: "layerNormBackward" as const, ints: [rows, cols, 0, 0], floats: [0] };
  const dropping = { ints: [rows, cols, -7, 12], floats: [1e-5, 0.25] };
  const droppingBack = { ...backward, ints: dropping.ints, floats: [0.25] };
  const mean = f32(rows);
  const rstd: TensorSpec = { ...f32(rows), fill: "positive" };
  const dy = act(rows, cols);
  const sums = f32InOut(cols);
  const w = act(cols);
  const size = `${rows}x${cols}`;
  return [
    { name: `layer_norm ${size}`, tensors: [x, null, w, w, y, null, ...stats], ...forward },
    {
      name: `layer_norm ${size}, float32 weight alone`,
      tensors: [x, null, f32(cols), null, y, null, ...stats],
      ...forward,
    },
    { name: `layer_norm ${size}, plain`, tensors: [x, null, null, null, y, null, ...stats], ...forward },
    { name: `layer_norm ${size}, residual`, tensors: [x, dy, w, w, y, y, ...stats], ...forward },
    { name: `layer_norm ${size}, residual not kept`, tensors: [x, dy, w, null, y, null, ...stats], ...forward },
    { name: `layer_norm ${size}, dropout`, tensors: [x, dy, w, w, y, y, ...stats], ...forward, ...dropping },
    {
      name: `layer_norm_backward ${size}`,
      tensors: [dy, x, w, mean, rstd, null, y, null, sums, sums],
      ...backward,
    },
    {
      name: `layer_norm_backward ${size}, dbias alone`,
      tensors: [dy, x, f32(cols), mean, rstd, null, y, null, null, sums],
      ...backward,
    },
    {
      name: `layer_norm_backward ${size}, plain`,
      tensors: [dy, x, null, mean, rstd, null, y, null, null, null],
      ...backward,
    },
    {
      name: `layer_norm_backward ${size}, extra`,
      tensors: [dy, x, w, mean, rstd, dy, y, null, null, null],
      ...backward,
    },
    {
      name: `layer_norm_backward ${size}, extra and dropout`,
      tensors: [dy, x, w, mean, rstd, dy, y, y, sums, sums],
      ...droppingBack,
    },
  ] as OpCase[];
});

export const cases: OpCase[] = [...rms, ...layer];
