/** Building blocks for one's own modules. */
export { constant, kaimingUniform, normalInit, ones, uniformInit, zeros } from "./init.js";
export { Dropout, Embedding, LayerNorm, Linear, LinearLike, RMSNorm } from "./layers.js";
export { type Initializer, Module, Parameter } from "./module.js";
