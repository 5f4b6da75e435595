/** `altiplano tokenize`: shows the tokens of a text. Reads the tokenizer only, no weights. */
import { Command } from 'commander';
import type { CliContext } from './context.js';
import { EXIT_OK, interruptible } from './failure.js';
import { addJson } from './flags.js';
import { textArgument } from './input.js';
import { DEMO_MODEL } from './loading.js';
import { plural, printable, table, write, writeJson } from './output.js';
import type { Finish } from './program.js';

interface TokenizeFlags {
  model?: string;
  json?: boolean;
}

const DETAILS = `
The ids are those of the text alone: no BOS is put in front, and "<s>" or "[INST]" in TEXT are
ordinary characters. "▁" in a piece is a space; <0x0A> is a byte of a character without a token.
Without TEXT, or with "-", it is read from standard input as it is, its final newline included.

Examples:
  altiplano tokenize "Hello, world!"
  altiplano tokenize --model tokenizer.model --json "Grüße" | jq .ids
  altiplano tokenize --json < novel.txt | jq '.ids | length'
`;

export function tokenizeCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('tokenize')
    .summary('show the tokens of a text')
    .description('Shows the token ids of a text and their pieces. Loads no weights.')
    .argument('[TEXT]', 'the text; "-" reads standard input')
    .option(
      '-m, --model <path>',
      'a model (folder or .gguf), tokenizer.model or tokenizer.json (default: the demo model)',
    );
  return addJson(command, 'ids, pieces')
    .addHelpText('after', DETAILS)
    .action(async (text: string | undefined, flags: TokenizeFlags) => {
      finish(await tokenize(context, text, flags));
    });
}

/** Runs the command. @returns the exit code */
export function tokenize(
  context: CliContext,
  argument: string | undefined,
  flags: TokenizeFlags,
): Promise<number> {
  return interruptible(context, async (signal) => {
    const { text } = await textArgument(context, 'TEXT', argument, signal);
    const { Tokenizer } = await context.library();
    const tokenizer = await Tokenizer.load(flags.model ?? DEMO_MODEL);
    const ids = Array.from(tokenizer.encode(text));
    const pieces = ids.map((id) => tokenizer.piece(id));
    if (flags.json) {
      await writeJson(context, { ids, pieces });
      return EXIT_OK;
    }
    const rows = ids.map((id, index) => [String(id), printable(context.stdout, pieces[index]!)]);
    await write(context.stdout, table(rows, [0]));
    await write(context.stdout, `${plural(ids.length, 'token')}\n`);
    return EXIT_OK;
  });
}
