// The records around one: of its topic, as the node counts them, or of all topics.

import { reach } from './ask.js';
import { failure } from './refusal.js';

const FIRST = '0'.repeat(26);

/** @typedef {{ulid: string, topic: string, record?: string, record_b64?: string}} Shown */

/** @param {Record<string, string>} given */
async function ask(given) {
  const answer = await reach(`query?${new URLSearchParams(given)}`, { headers: { accept: 'application/x-ndjson' } });
  if (!answer.ok) throw await failure(answer);
  const all = (await answer.text()).trimEnd().split('\n').map((line) => JSON.parse(line));
  const end = all[all.length - 1]?.end;
  if (end) all.pop();
  return { all: /** @type {Shown[]} */ (all), isComplete: Boolean(end?.complete) };
}

/**
 * So many before and after, oldest first, whatever was asked for.
 * @param {{ulid: string, topic: string}} record @param {number} before @param {number} after @param {boolean} isEveryTopic
 */
export async function around({ ulid, topic }, before, after, isEveryTopic) {
  if (isEveryTopic) {
    const [above, below] = await Promise.all([
      ask({ from: FIRST, to: ulid, after: ulid, order: 'desc', limit: String(before) }),
      ask({ from: ulid, after: ulid, order: 'asc', limit: String(after) }),
    ]);
    return { before: above.all.reverse(), after: below.all, isComplete: above.isComplete && below.isComplete };
  }
  const { all, isComplete } = await ask({ topic, from: ulid, to: ulid, context: String(Math.max(before, after)) });
  const own = all.findIndex((one) => one.ulid === ulid);
  if (own < 0) return { before: [], after: [], isComplete };
  return { before: all.slice(Math.max(0, own - before), own), after: all.slice(own + 1, own + 1 + after), isComplete };
}
