/** Writing: streams with back-pressure, JSON, aligned columns, sizes and colours. */
import { styleText } from 'node:util';
import type { CliContext, OutputStream } from './context.js';

/** Writes `text` and waits while the reader is slower than we are. */
export async function write(stream: OutputStream, text: string): Promise<void> {
  if (stream.destroyed || stream.write(text)) return;
  await new Promise<void>((resolve) => {
    const events = ['drain', 'close', 'error'];
    const done = () => {
      for (const event of events) stream.off(event, done);
      resolve();
    };
    for (const event of events) stream.on(event, done);
  });
}

/** Writes the one JSON object of a `--json` run: indented for people, one line for programs. */
export function writeJson(context: CliContext, value: object): Promise<void> {
  const indent = context.stdout.isTTY ? 2 : undefined;
  return write(context.stdout, `${JSON.stringify(value, null, indent)}\n`);
}

/** Functions that colour text for `stream`; they leave it alone without a terminal or by NO_COLOR. */
export function styles(context: CliContext, stream: OutputStream) {
  const { NO_COLOR, TERM } = context.env;
  const coloured = stream.isTTY === true && !NO_COLOR && TERM !== 'dumb';
  const style = (format: Parameters<typeof styleText>[0]) => (text: string) =>
    coloured ? styleText(format, text, { validateStream: false }) : text;
  return { dim: style('dim'), bold: style('bold'), prompt: style(['bold', 'cyan']) };
}

/**
 * Generated text as it may reach `stream`: a terminal gets no control characters but tab and
 * newline, for a model can be made to say escape sequences; files and pipes get every byte.
 */
export function printable(stream: OutputStream, text: string): string {
  if (!stream.isTTY) return text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it is about
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '\ufffd');
}

/** Rows as lines with aligned columns; `right` names the columns that align to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        right.includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join('  ')
      .trimEnd();
  return rows.map((row) => `${line(row)}\n`).join('');
}

/** A number with three significant digits and grouped thousands: "4,197", "12.3", "0.0123". */
export function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) >= 100
    ? Math.round(value).toLocaleString('en-US')
    : String(Number(value.toPrecision(3)));
}

/** "1 turn", "2 turns". */
export function plural(count: number, noun: string): string {
  return `${count.toLocaleString('en-US')} ${noun}${count === 1 ? '' : 's'}`;
}
