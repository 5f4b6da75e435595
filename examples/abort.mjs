// An AbortSignal ends a request wherever it is; what was generated so far is its result.
import { Llama } from 'altiplano';

const llama = await Llama.load(process.argv[2]);
const { result } = llama.generate('Once upon a time', {
  ignoreEos: true,
  signal: AbortSignal.timeout(100),
});
const { finishReason, completionTokens, text } = await result;
console.log(finishReason, `after ${completionTokens} tokens:`, text.slice(0, 60));
await llama.dispose();
