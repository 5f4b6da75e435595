// What quantized weights lose on text as the model itself writes it.
//   node bench/quantization.mjs MODEL [int4|int8] [texts]
// The model, in f32, goes on from "Once upon a time" at temperature 1, a few hundred times with fixed
// seeds. On such text the mean log-likelihood that a quantized model loses is its Kullback-Leibler
// divergence from the original: no better text can be had for small differences. MODEL: for instance
// models/demo. The error printed is that of the mean over the texts.
import { Llama } from '../dist/index.js';

const [source, weights = 'int4', texts = '300'] = process.argv.slice(2);
const load = (options) => Llama.load(source, { contextTokens: 256, ...options });

/** Of each text: nats and tokens. */
const score = (llama, written) => Promise.all(written.map((text) => llama.perplexity(text)));

const original = await load({ weights: 'f32' });
const written = (
  await Promise.all(
    Array.from(
      { length: Number(texts) },
      (_, seed) =>
        original.generate('Once upon a time', {
          temperature: 1,
          topP: 1,
          topK: 0,
          repetitionPenalty: 1,
          seed,
          maxTokens: 200,
        }).result,
    ),
  )
).map(({ text }) => `Once upon a time${text}`);
const expected = await score(original, written);
await original.dispose();
const tokens = expected.reduce((sum, each) => sum + each.tokens - 1, 0);
const nats = expected.reduce((sum, each) => sum + each.negativeLogLikelihood, 0);
console.log(`${source}: ${tokens} tokens, perplexity ${Math.exp(nats / tokens).toFixed(4)} in f32`);

for (const weightGroup of [32, 64, 128]) {
  for (const zeroPoints of [false, true]) {
    const llama = await load({ weights, weightGroup, zeroPoints });
    const found = await score(llama, written);
    await llama.dispose();
    const losses = found.map(
      (each, i) => each.negativeLogLikelihood - expected[i].negativeLogLikelihood,
    );
    const loss = losses.reduce((sum, each) => sum + each, 0) / tokens;
    const squares = losses.map((each, i) => (each - loss * (expected[i].tokens - 1)) ** 2);
    const error = Math.sqrt(squares.reduce((sum, each) => sum + each, 0)) / tokens;
    console.log(
      `${weights}, group ${weightGroup}${zeroPoints ? ' with zero points' : ''}:`.padEnd(36),
      `${loss.toFixed(4)} +- ${error.toFixed(4)} nats a token, perplexity`,
      `${(100 * Math.expm1(loss)).toFixed(2)} %`,
    );
  }
}
