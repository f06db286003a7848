/** Numbers in [-1, 1), the same each time. */
export function random(count) {
  const x = new Float32Array(count);
  let s = 12345;
  for (let i = 0; i < count; i++) {
    s = (Math.imul(s, 1664525) + 1013904223) | 0;
    x[i] = s / 2 ** 31;
  }
  return x;
}
