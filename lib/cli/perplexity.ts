/** `altiplano perplexity`: how well a model predicts a text. */
import { Command } from 'commander';
import type { CliContext } from './context.js';
import { EXIT_OK, interruptible } from './failure.js';
import { addJson, addModelOptions, type ModelFlags } from './flags.js';
import { readText } from './input.js';
import { loadModel, progressBar } from './loading.js';
import { number, plural, write, writeJson } from './output.js';
import type { Finish } from './program.js';

interface PerplexityFlags extends ModelFlags {
  file: string;
  json?: boolean;
}

const DETAILS = `
The text is taken as it is, with BOS in front; every token but BOS is predicted from those before
it. A text longer than the context is cut into windows, each with a BOS of its own. Perplexity is
exp(mean negative log-likelihood): lower is better; compare it between --weights to see what
quantization loses.

Examples:
  altiplano perplexity --file story.txt
  altiplano perplexity --file story.txt --weights int4 --json
`;

export function perplexityCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('perplexity')
    .summary('measure how well the model predicts a text')
    .description('Measures how well the model predicts a text.')
    .requiredOption('-f, --file <text>', 'the text file, UTF-8; "-" reads standard input');
  return addJson(
    addModelOptions(command),
    'perplexity, tokens (their number, BOS included), negativeLogLikelihood (sum, in nats)',
  )
    .addHelpText('after', DETAILS)
    .action(async (flags: PerplexityFlags) => {
      finish(await perplexity(context, flags));
    });
}

/** Runs the command. @returns the exit code */
export function perplexity(context: CliContext, flags: PerplexityFlags): Promise<number> {
  return interruptible(context, async (signal) => {
    const text = await readText(context, flags.file, signal);
    const model = await loadModel(context, flags, signal);
    const bar = await progressBar(context, 'Reading', (tokens) => `${number(tokens)} tokens`);
    const started = performance.now();
    try {
      const result = await model.perplexity(text, {
        signal,
        onProgress: ({ doneTokens, totalTokens }) => bar.update(doneTokens, totalTokens),
      });
      bar.stop();
      if (flags.json) {
        await writeJson(context, {
          perplexity: result.perplexity,
          tokens: result.tokens,
          negativeLogLikelihood: result.negativeLogLikelihood,
        });
      } else {
        const seconds = (performance.now() - started) / 1000;
        await write(
          context.stdout,
          `perplexity ${result.perplexity.toFixed(4)} over ${plural(result.tokens, 'token')} (BOS included), ` +
            `${number(seconds)} s, ${number(result.tokens / seconds)} tokens/s\n`,
        );
      }
      return EXIT_OK;
    } finally {
      bar.stop();
      await model.dispose();
    }
  });
}
