/** The table: as text for a terminal, as Markdown, as data. */
import { median } from './measure.mjs';

const three = (value) =>
  value >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
const factor = (value) => `${Number(value.toFixed(2))}x`;
const percent = (value) => `${Number((100 * value).toFixed(1))} %`;

function check(what, measured, goal, show) {
  const { value, sign } = goal;
  return {
    what,
    measured,
    goal: value === undefined ? null : `${sign} ${show(value)}`,
    verdict: value === undefined ? null : goal.isKept(measured) ? 'kept' : 'missed',
    text: show(measured),
  };
}

/**
 * What came out of a row: medians, checks against the goals, or why there are none.
 * @param {{ altiplano: number[], peer?: number[], share?: number, peerShare?: number } |
 *   { reason: string }} result `peerShare`: what the peer reaches of the same limit
 */
export function judge(row, result) {
  const { id, title, unit, model } = row;
  const outcome = { id, title, model, unit, ...result, checks: [] };
  if (result.reason !== undefined) return outcome;
  outcome.altiplanoMedian = median(result.altiplano);
  if (result.peer !== undefined) {
    outcome.peerMedian = median(result.peer);
    // Of neighbouring turns: what memory delivers may change within seconds.
    const ratio = median(result.altiplano.map((ours, i) => ours / result.peer[i]));
    outcome.checks.push(check('ratio to node-llama-cpp', ratio, row.ratio, factor));
  }
  if (row.share !== undefined && result.share !== undefined) {
    const { label, percent: isPercent } = row.share;
    outcome.checks.push(check(label, result.share, row.share, isPercent ? percent : factor));
  }
  return outcome;
}

const judged = ({ text, goal, verdict }) =>
  goal === null ? text : `${text} (${goal}: ${verdict})`;

function cells(outcome) {
  const { title, unit, reason, noShare, altiplanoMedian, peerMedian, peerShare, checks } = outcome;
  if (reason !== undefined) return [title, `NOT MEASURED: ${reason}`];
  const ratio = checks.find(({ what }) => what.startsWith('ratio'));
  const share = checks.find((one) => one !== ratio);
  const besides = peerShare === undefined ? '' : `; node-llama-cpp ${percent(peerShare)}`;
  return [
    title,
    `${three(altiplanoMedian)} ${unit}`,
    peerMedian === undefined ? '-' : `${three(peerMedian)} ${unit}`,
    ratio ? judged(ratio) : '-',
    share ? `${judged(share)} ${share.what}${besides}` : (noShare ?? '-'),
  ];
}

const HEAD = ['measured', 'altiplano', 'node-llama-cpp', 'ratio (goal)', 'and'];

/** Columns of equal width; a row that was not measured runs across them. */
export function textTable(outcomes) {
  const rows = [HEAD, ...outcomes.map(cells)];
  const widths = HEAD.map((_, column) =>
    Math.max(
      ...rows
        .filter((row) => row.length === HEAD.length || column === 0)
        .map((row) => row[column].length),
    ),
  );
  const line = (row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd();
  return `${rows.map(line).join('\n')}\n`;
}

export function markdownTable(outcomes) {
  const line = (row) => `| ${HEAD.map((_, column) => row[column] ?? '').join(' | ')} |`;
  return `${[HEAD, HEAD.map(() => '---'), ...outcomes.map(cells)].map(line).join('\n')}\n`;
}

/** One sentence for the end. */
export function summary(outcomes) {
  const checks = outcomes.flatMap((outcome) => outcome.checks);
  const count = (verdict) => checks.filter((one) => one.verdict === verdict).length;
  const unmeasured = outcomes.filter(({ reason }) => reason !== undefined).length;
  return (
    `${count('kept')} goals kept, ${count('missed')} missed` +
    (unmeasured === 0 ? '.' : `; ${unmeasured} of ${outcomes.length} rows were NOT MEASURED.`)
  );
}
