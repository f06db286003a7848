import { resetCheckpointing } from "./autograd/checkpoint.js";
import { resetTape } from "./autograd/tape.js";
import { interruptHost } from "./display/host.js";
import { resetTransfers } from "./tensor/host.js";
import * as native from "./tensor/native.js";
import { resetRecording } from "./tensor/record.js";
import { resetScopes } from "./tensor/scope.js";

// A kernel's interrupt stops queued native work too; in plain Node there is no such flag.
const host = interruptHost();
if (host) native.setInterruptFlag(host.flag);
host?.onReset?.(() => {
  // Work that goes on beside the interrupted cell keeps what it has queued.
  if (native.state() !== "running") native.recover();
  resetTape();
  resetCheckpointing();
  resetTransfers();
  resetScopes();
  resetRecording();
});

export { backward } from "./autograd/tape.js";
export { Dataset, loadDataset } from "./data/dataset.js";
export { type StreamDatasetOptions, streamDataset } from "./data/dataset-stream.js";
export type { Preference } from "./data/preference.js";
export { display } from "./display/display.js";
export { progress } from "./display/progress.js";
export { table } from "./display/table.js";
export * from "./errors.js";
export { type EstimateOptions, MemoryEstimate } from "./estimate.js";
export { Metrics } from "./evaluation/classification.js";
export type { EvaluateOptions, MetricName } from "./evaluation/evaluate.js";
export type { SamplingOptions } from "./evaluation/generate.js";
export { type RougeOptions, type RougeScore, rouge } from "./evaluation/rouge.js";
export type { AdapterOptions } from "./fetch.js";
export { bundledData, embeddedModel } from "./hub/bundled.js";
export type { Message } from "./hub/chat.js";
export { Tokenizer } from "./hub/tokenizer.js";
export type { LoraOptions } from "./lora/options.js";
export { Model } from "./model.js";
export * as nn from "./nn/index.js";
export { type LoadOptions, type LoadPlan, loadModel } from "./plan.js";
export * as plot from "./plot/index.js";
export type { QuantizeOptions } from "./quantization/nf4.js";
export { devices, type MergeReport } from "./report.js";
export { arange, type CreateOptions, full, ones, rand, randn, zeros } from "./tensor/create.js";
export { type Device, type DeviceName, defaultDevice, setDefaultDevice } from "./tensor/device.js";
export type { DType } from "./tensor/dtype.js";
export { seed } from "./tensor/ops/random.js";
export { noGrad } from "./tensor/record.js";
export { Scope, scope } from "./tensor/scope.js";
export { Tensor, tensor } from "./tensor/tensor.js";
export { DivergenceError } from "./training/health.js";
export * as optim from "./training/optimizer.js";
export type { DpoLoss, Method, TrainOptions, TrainStep } from "./training/options.js";
export type { PreferenceMetrics } from "./training/preference.js";
export type { TrainResult, TrainRun } from "./training/run.js";
