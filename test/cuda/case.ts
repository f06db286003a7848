// What a case of test/cuda/cases-*.ts says: one call of a native op, run on the CPU and on the GPU and compared.

export type CaseDType = "float32" | "bfloat16" | "float16";

export interface TensorSpec {
  shape: number[];
  /** An activation: it has the dtype under test. Otherwise `dtype`. */
  act?: boolean;
  /** float32 by default. */
  dtype?: CaseDType | "int32" | "uint8";
  /**
   * Values before the call. "normal" (inputs' default): mean 0, standard deviation 1. "uniform": in [0, 1). "positive": in [0.1, 2.1). "zero".
   * "ids": whole numbers in [0, limit). "e4m3": any codes but NaN. uint8 without a fill: any bytes. Outputs without a fill hold NaN (whole numbers: a mark), so that an
   * element that only one backend writes is found.
   */
  fill?: "normal" | "uniform" | "positive" | "zero" | "ids" | "e4m3";
  /** "ids" and whole numbers are below it. */
  limit?: number;
  /** Instead of a fill, row-major. */
  values?: number[];
  /** Compared after the call; one that is read too has a fill or values. */
  output?: boolean;
  /** An output that is not compared. */
  skip?: boolean;
  /** Bytes must be equal on both devices. */
  exact?: boolean;
}

/** Values of one tensor, of a list of them, or of an absent one, as float64. */
export type CaseValues = Float64Array | Float64Array[] | null;

export interface OpCase {
  /** "rms_norm 37x576 residual" */
  name: string;
  /** Name in src/tensor/calls.ts. */
  op: string;
  /** In the order of native/ops.def, inputs then outputs; null: absent. */
  tensors: (TensorSpec | TensorSpec[] | null)[];
  ints: number[];
  floats: number[];
  /** All three by default, or float32 alone when no tensor is an activation. */
  dtypes?: CaseDType[];
  /** Largest |a-b|₂/|b|₂ of an output; 1e-5, 1e-2, 2e-3 by default. */
  tolerance?: Partial<Record<CaseDType, number>>;
  /**
   * The op in float64: values of all tensors as the backends get them → what every output (in order) should hold; null: not compared.
   */
  reference?: (tensors: CaseValues[]) => (Float64Array | null)[];
}
