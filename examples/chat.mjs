// A conversation: the answer streams, and becomes part of the next question's context.
import { Llama } from 'altiplano';

const llama = await Llama.load(process.argv[2]); // a model folder or GGUF file; default: the demo model
const messages = [{ role: 'system', content: 'You are a helpful assistant.' }];
for (const question of ['What is the capital of Spain?', 'And France?']) {
  messages.push({ role: 'user', content: question });
  console.log(`> ${question}`);
  let answer = '';
  for await (const text of llama.chat(messages, { temperature: 0 })) {
    process.stdout.write(text);
    answer += text;
  }
  console.log();
  messages.push({ role: 'assistant', content: answer });
}
await llama.dispose();
