/** A sample of the demo model's chat evaluation on a CUDA device: every answer, together and alone. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Llama, type LoadOptions } from '../../../lib/index.js';
import { demoFolder } from '../../e2e/support.js';

interface ChatCase {
  messages: { role: 'system' | 'user' | 'assistant'; content: string }[];
  expect: string;
}

const { cases }: { cases: ChatCase[] } = JSON.parse(
  readFileSync(join(demoFolder, 'chat-eval.json'), 'utf8'),
);
/** As many as a simulated device answers in half a minute, from all parts of the evaluation. */
const sample = cases.filter((_, i) => i % 12 === 0);

const OPTIONS = { temperature: 0, maxTokens: 100 };

/** The model's own type, bf16, with either cache; and f16. */
test.each<LoadOptions>([{}, { kv: 'int8' }, { weights: 'f16' }])(
  '%j',
  async (options) => {
    const llama = await Llama.load(demoFolder, {
      device: 'cuda',
      kvCacheTokens: 8192,
      ...options,
    });
    const answers = await Promise.all(
      sample.map(({ messages }) => llama.chat(messages, OPTIONS).result),
    );
    expect(sample.length).toBeGreaterThan(10);
    expect(answers.map(({ text }) => text.trim())).toEqual(sample.map((each) => each.expect));
    expect(llama.stats.mostSequencesInStep).toBe(sample.length);
    for (const each of sample.slice(0, 2)) {
      const alone = await llama.chat(each.messages, OPTIONS).result;
      expect(alone.text.trim()).toBe(each.expect);
    }
    await llama.dispose();
  },
  300_000,
);
