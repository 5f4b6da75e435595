// One attention block by hand, with the kernels that models run on; then what quantization costs.
//   node examples/kernels.mjs
import { attention, dequantize, isa, matmul, quantize, rmsNorm, rope } from 'altiplano/kernels';

const [tokens, hiddenSize, heads, kvHeads, headDim] = [5, 96, 6, 2, 16];
const random = (length, size = 1) =>
  Float32Array.from({ length }, () => (Math.random() * 2 - 1) * size);
const weights = (rows, cols) => ({
  type: 'f32',
  rows,
  cols,
  values: random(rows * cols, 1 / Math.sqrt(cols)),
});

const x = random(tokens * hiddenSize); // [tokens, hiddenSize]
const wq = weights(heads * headDim, hiddenSize);
const wk = weights(kvHeads * headDim, hiddenSize);
const wv = weights(kvHeads * headDim, hiddenSize);
const wo = weights(hiddenSize, heads * headDim);

function block(wo) {
  const positions = [0, 1, 2, 3, 4];
  const h = rmsNorm(x, new Float32Array(hiddenSize).fill(1));
  const q = rope(matmul(h, wq), { heads, headDim, positions });
  const k = rope(matmul(h, wk), { heads: kvHeads, headDim, positions });
  const v = matmul(h, wv);
  return matmul(attention(q, k, v, { heads, kvHeads, headDim }), wo);
}

/** The size of a - b compared with that of b. */
function relativeError(a, b) {
  const norm = (values) => Math.hypot(...values);
  return norm(a.map((value, i) => value - b[i])) / norm(b);
}

console.log(`kernel table: ${isa()}`);
const exact = block(wo);
for (const options of [
  { type: 'int8', group: 32 },
  { type: 'int4', group: 32 },
  { type: 'int4', group: 32, zeroPoints: true },
]) {
  const quantized = quantize(wo.values, { rows: wo.rows, cols: wo.cols, ...options });
  console.log(JSON.stringify(options), {
    weights: relativeError(dequantize(quantized), wo.values).toFixed(4),
    output: relativeError(block(quantized), exact).toFixed(4),
  });
}
