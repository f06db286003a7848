// AdamW's scalars, the same for every backend and for moments of 32 and of 8 bits.
#pragma once

namespace tunebook {

struct AdamW {
  float keep, beta1, beta2, new1, new2, rate, root, eps, max_norm;
};

// What decoupled weight decay leaves of a parameter.
static inline float kept_of(float lr, float weight_decay) { return (float)(1.0 - (double)lr * (double)weight_decay); }

// From an op's arguments, in double as Python computes them. Internal linkage: files are compiled for several instruction sets.
template <class Args> static AdamW adamw_of(const Args& a) {
  // float32 betas stand for the decimal number that was meant: 1 - 0.999f is off by 1e-5.
  const double b1 = __builtin_round((double)a.beta1 * 1e7) / 1e7, b2 = __builtin_round((double)a.beta2 * 1e7) / 1e7;
  AdamW o;
  o.keep = kept_of(a.lr, a.weight_decay);
  o.beta1 = a.beta1, o.beta2 = a.beta2, o.new1 = (float)(1.0 - b1), o.new2 = (float)(1.0 - b2), o.eps = a.eps, o.max_norm = a.max_norm;
  o.rate = (float)((double)a.lr / (1.0 - __builtin_pow(b1, (double)a.step)));
  o.root = (float)(1.0 / __builtin_sqrt(1.0 - __builtin_pow(b2, (double)a.step)));
  return o;
}

}  // namespace tunebook
