// Several callers at once: they share the model's steps, and each gets what it would get alone.
import { Llama } from 'altiplano';

const llama = await Llama.load(process.argv[2]);
const countries = ['France', 'Spain', 'Italy', 'Japan', 'Egypt', 'Peru'];
const answers = await Promise.all(
  countries.map(
    (country) =>
      llama.chat([{ role: 'user', content: `What is the capital of ${country}?` }], {
        temperature: 0,
      }).result,
  ),
);
for (const { text } of answers) console.log(text);
console.log(`sequences in one step: up to ${llama.stats.mostSequencesInStep}`);
await llama.dispose();
