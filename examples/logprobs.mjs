// How sure the model is of each token, and what else it considered.
import { Llama } from 'altiplano';

const llama = await Llama.load(process.argv[2]);
const messages = [{ role: 'user', content: 'Is 7 bigger than 3?' }];
const { logprobs } = await llama.chat(messages, { temperature: 0, logprobs: 3 }).result;
for (const { id, logprob, alternatives } of logprobs) {
  const others = alternatives
    .filter((other) => other.id !== id)
    .map((other) => `${llama.tokenizer.piece(other.id)} ${Math.exp(other.logprob).toFixed(3)}`);
  console.log(llama.tokenizer.piece(id), Math.exp(logprob).toFixed(3), `| ${others.join(', ')}`);
}
await llama.dispose();
