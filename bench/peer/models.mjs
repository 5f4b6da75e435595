/** The model files that the benchmark asks for. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** What each file is, and which published file serves. Synthetic ones come from synthetic-gguf.mjs. */
export const MODELS = {
  '1b-q4_0': {
    name: '1.1B Q4_0',
    what: 'TinyLlama-1.1B in Q4_0, for instance tinyllama-1.1b-chat-v1.0.Q4_0.gguf',
    synthetic: '1b q4_0',
  },
  '1b-q8_0': {
    name: '1.1B Q8_0',
    what: 'TinyLlama-1.1B in Q8_0, for instance tinyllama-1.1b-chat-v1.0.Q8_0.gguf',
    synthetic: '1b q8_0',
  },
  '7b-q4_0': {
    name: '7B Q4_0',
    what: 'Llama 2 7B in Q4_0, for instance llama-2-7b.Q4_0.gguf',
    synthetic: '7b q4_0',
  },
};

export const modelPath = (folder, id) => join(folder, `${id}.gguf`);

/** How to get the files that `folder` lacks, for people; empty if all are there. */
export function explainModels(folder, ids) {
  return ids
    .filter((id) => !existsSync(modelPath(folder, id)))
    .map(
      (id) =>
        `${id}.gguf is not in ${folder}: ${MODELS[id].what}, renamed; or random weights of its shape:\n` +
        `  node bench/synthetic-gguf.mjs ${MODELS[id].synthetic} ${modelPath(folder, id)}`,
    );
}
