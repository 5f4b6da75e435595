/** The command line as a whole: its commands, its help, and what becomes of errors. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { Command, CommanderError } from 'commander';
import { packageRoot } from '../native.js';
import { benchCommand } from './bench.js';
import { chatCommand } from './chat.js';
import type { CliContext } from './context.js';
import { doctorCommand } from './doctor.js';
import {
  EXIT_FAILURE,
  EXIT_OK,
  EXIT_USAGE,
  reportError,
  reportWarning,
  UsageError,
} from './failure.js';
import { generateCommand } from './generate.js';
import { inspectCommand } from './inspect.js';
import { perplexityCommand } from './perplexity.js';
import { tokenizeCommand } from './tokenize.js';

/** Takes what a command's action returns as the exit code of the run. */
export type Finish = (exitCode: number) => void;

const ABOUT = `Llama 2 inference inside Node.js.

Without --model, every command uses the small demo model that comes with the package.`;

const FOOTER = `
Examples:
  altiplano chat
  altiplano generate "Once upon a time" --max-tokens 40
  altiplano inspect ~/models/llama-2-7b-chat
  altiplano <command> --help

Exit codes:
  0  done      1  failed: stderr says why      2  wrong usage      130  stopped by Ctrl-C

Environment:
  ALTIPLANO_ISA=portable|avx2|avxvnni|avx512  use this kernel table instead of the best one
  ALTIPLANO_DEBUG=1            show the stack of errors
  NO_COLOR=1                   no colours
`;

/** This package's version, from its manifest. */
export function packageVersion(): string {
  const manifest = readFileSync(join(packageRoot, 'package.json'), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

function createProgram(context: CliContext, finish: Finish): Command {
  const program = new Command('altiplano')
    .description(ABOUT)
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .addHelpText('after', FOOTER);
  for (const create of [
    chatCommand,
    generateCommand,
    tokenizeCommand,
    inspectCommand,
    perplexityCommand,
    benchCommand,
    doctorCommand,
  ]) {
    program.addCommand(create(context, finish));
  }
  for (const command of [program, ...program.commands]) {
    command
      .exitOverride()
      .configureOutput({
        writeOut: (text) => context.stdout.write(text),
        writeErr: (text) => context.stderr.write(text),
        getOutHelpWidth: () => Math.min(context.stdout.columns ?? 100, 100),
        getErrHelpWidth: () => Math.min(context.stderr.columns ?? 100, 100),
        // Errors are reported by `run`, in one form for all of them.
        outputError: () => {},
      })
      .helpOption('-h, --help', 'print this help');
  }
  return program;
}

/**
 * Runs the command that `args` ask for. Never throws.
 * @param args the command line without the program's name
 * @returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C
 */
export async function run(args: readonly string[], context: CliContext): Promise<number> {
  const json = args
    .slice(0, args.includes('--') ? args.indexOf('--') : undefined)
    .includes('--json');
  let exitCode = EXIT_OK;
  context.onWarning((warning) => reportWarning(context, warning.message, json));
  try {
    const program = createProgram(context, (code) => {
      exitCode = code;
    });
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    exitCode =
      error instanceof CommanderError
        ? reportUsage(context, error, args, json)
        : reportFailure(context, error, json);
  }
  // Streams report failed writes a little later.
  await setImmediate();
  const { aborted, reason } = context.outputClosed;
  // Whoever read our output has gone: there is nobody left to tell anything.
  if (!aborted || (reason as { code?: unknown }).code === 'EPIPE') return exitCode;
  return reportFailure(context, reason, json);
}

function reportFailure(context: CliContext, error: unknown, json: boolean): number {
  reportError(context, error, json);
  return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILURE;
}

/** Help that was asked for is no error; help instead of a command, and all else, is wrong usage. */
function reportUsage(
  context: CliContext,
  error: CommanderError,
  args: readonly string[],
  json: boolean,
): number {
  if (error.exitCode === 0) return EXIT_OK;
  if (error.code === 'commander.help') return EXIT_USAGE;
  const name = args[0] !== undefined && !args[0].startsWith('-') ? ` ${args[0]}` : '';
  const help = error.code === 'commander.unknownCommand' ? '' : name;
  const message = error.message.replace(/^error: /, '').replace(/\.?$/, '.');
  reportError(context, new UsageError(`${message} See "altiplano${help} --help"`), json);
  return EXIT_USAGE;
}
