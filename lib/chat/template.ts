/**
 * Renders a Jinja chat template with `@huggingface/jinja`, under limits: a template comes with a
 * checkpoint, so it is as trustworthy as the place that the checkpoint came from. One that loops for
 * ever or builds giant values ends in a typed error.
 */

import { createContext, Script } from 'node:vm';
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { AltiplanoError } from '../errors.js';

/** Templates in use have up to 30 KB. */
const MAX_TEMPLATE_LENGTH = 256 * 1024;

/** Expressions and statements evaluated for one conversation; thousands are usual. */
const MAX_STEPS = 2_000_000;

/** UTF-16 units in any one string: more than a context of a million tokens needs. */
const MAX_STRING_LENGTH = 16 * 2 ** 20;

/** Elements of any one list, those of range() included. */
const MAX_LIST_LENGTH = 100_000;

/** For what no count of steps sees, such as printing a list that holds itself many times over. */
const MAX_MILLISECONDS = 2000;

// The library's own declarations import each other without file endings, so that TypeScript sees
// nothing of these classes. This is what is used of them.
interface JinjaEnvironment {
  set(name: string, value: unknown): unknown;
}
interface JinjaInterpreter {
  run(program: unknown): { value: unknown };
  evaluate(statement: unknown, environment: unknown): { value: unknown };
}
const BaseEnvironment = Environment as unknown as new () => JinjaEnvironment;
const BaseInterpreter = Interpreter as unknown as new (
  environment: JinjaEnvironment,
) => JinjaInterpreter;

/** The interpreter, with a look at every value that it makes. */
class LimitedInterpreter extends BaseInterpreter {
  private steps = 0;

  override evaluate(statement: unknown, environment: unknown): { value: unknown } {
    if (++this.steps > MAX_STEPS) throw new Error(`more than ${MAX_STEPS} steps`);
    const result = super.evaluate(statement, environment);
    const { value } = result;
    if (typeof value === 'string' && value.length > MAX_STRING_LENGTH) {
      throw new Error(`a string of ${value.length} characters`);
    }
    if (Array.isArray(value) && value.length > MAX_LIST_LENGTH) {
      throw new Error(`a list of ${value.length} elements`);
    }
    return result;
  }
}

export interface TemplateVariables {
  messages: readonly { role: string; content: string }[];
  bosToken: string;
  eosToken: string;
  /** The time that `strftime_now` tells. */
  now: Date;
}

/** A parsed chat template. */
export class ChatTemplate {
  private readonly program: unknown;

  /** @throws `ALTIPLANO_CHAT_TEMPLATE` if the template is no Jinja, or is too long */
  constructor(source: string) {
    if (source.length > MAX_TEMPLATE_LENGTH) {
      throw templateError(`is longer than ${MAX_TEMPLATE_LENGTH} characters`);
    }
    this.program = withTimeLimit('cannot be parsed', () =>
      parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })),
    );
  }

  /**
   * Renders a conversation with what `transformers` gives to templates: `messages`, `bos_token`,
   * `eos_token`, `add_generation_prompt` (true), `raise_exception`, `strftime_now`, `range`.
   * @throws `ALTIPLANO_CHAT_TEMPLATE` with the template's own message, if it raises one
   */
  render(variables: TemplateVariables): string {
    return withTimeLimit('cannot be rendered', () => {
      const interpreter = new LimitedInterpreter(environmentOf(variables));
      return String(interpreter.run(this.program).value);
    });
  }
}

function environmentOf({ messages, bosToken, eosToken, now }: TemplateVariables): JinjaEnvironment {
  const environment = new BaseEnvironment();
  const constants: [string, unknown][] = [
    ['true', true],
    ['false', false],
    ['none', null],
    ['True', true],
    ['False', false],
    ['None', null],
  ];
  for (const [name, value] of constants) environment.set(name, value);
  environment.set('range', limitedRange);
  environment.set('raise_exception', (message: unknown) => {
    throw new Error(String(message));
  });
  environment.set('strftime_now', (format: unknown) => strftime(now, String(format)));
  environment.set('messages', messages);
  environment.set('bos_token', bosToken);
  environment.set('eos_token', eosToken);
  environment.set('add_generation_prompt', true);
  // Templates with tools ask whether these are there.
  environment.set('tools', null);
  environment.set('documents', null);
  return environment;
}

function limitedRange(first: number, second?: number, step = 1): number[] {
  const start = second === undefined ? 0 : first;
  const stop = second === undefined ? first : second;
  if (!(Number.isInteger(start) && Number.isInteger(stop) && Number.isInteger(step))) {
    throw new Error('range() takes integers');
  }
  if (step === 0) throw new Error('range() step must not be zero');
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_LIST_LENGTH) throw new Error(`a range of ${count} elements`);
  return Array.from({ length: count }, (_, index) => start + index * step);
}

const MONTHS =
  'January February March April May June July August September October November December'.split(
    ' ',
  );
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** Python's `strftime` in the C locale, local time, for the directives that templates use. */
function strftime(time: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const directives: Record<string, string> = {
    Y: String(time.getFullYear()),
    y: two(time.getFullYear() % 100),
    m: two(time.getMonth() + 1),
    d: two(time.getDate()),
    H: two(time.getHours()),
    I: two(time.getHours() % 12 || 12),
    M: two(time.getMinutes()),
    S: two(time.getSeconds()),
    p: time.getHours() < 12 ? 'AM' : 'PM',
    B: MONTHS[time.getMonth()],
    b: MONTHS[time.getMonth()].slice(0, 3),
    A: DAYS[time.getDay()],
    a: DAYS[time.getDay()].slice(0, 3),
    '%': '%',
  };
  return format.replace(/%(.)/gs, (whole, directive: string) => directives[directive] ?? whole);
}

/** Made at first use: a context costs a millisecond, and most models need none. */
let timed: { script: Script; context: { work: () => unknown } } | undefined;

/**
 * Runs `work` under node:vm's watchdog, the only thing that stops synchronous JavaScript. Nothing is
 * isolated by it, and nothing needs to be: a Jinja template cannot reach JavaScript.
 */
function withTimeLimit<T>(failure: string, work: () => T): T {
  timed ??= {
    script: new Script('work()'),
    context: createContext({ work: () => undefined }) as { work: () => unknown },
  };
  timed.context.work = work;
  try {
    return timed.script.runInContext(timed.context, { timeout: MAX_MILLISECONDS }) as T;
  } catch (cause) {
    throw templateError(`${failure}: ${messageOf(cause)}`, cause);
  } finally {
    timed.context.work = () => undefined;
  }
}

function messageOf(cause: unknown): string {
  const { code, message } = (cause ?? {}) as { code?: unknown; message?: unknown };
  if (code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') return `more than ${MAX_MILLISECONDS} ms of work`;
  return typeof message === 'string' ? message : String(cause);
}

function templateError(message: string, cause?: unknown): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_CHAT_TEMPLATE', message, {
    subject: 'the chat template',
    cause,
  });
}
