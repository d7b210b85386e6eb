// Why a request was refused, be it by the node or by what stands before it.

const WORDS_MAX = 2000;
const WAIT_MAX_S = 3600;

/** @typedef {{status: number, words: string, retry: number, brokeOff?: boolean}} Failure `status` 0: nobody answered, -1: it was given up; `retry` in seconds. */

/** Seconds of a `Retry-After`: a number, or a date. @param {string | null} text */
export function seconds(text) {
  const number = Number(text ?? 0);
  const left = Number.isNaN(number) ? (Date.parse(text ?? '') - Date.now()) / 1000 : number;
  return left > 0 ? Math.min(WAIT_MAX_S, Math.ceil(left)) : 0;
}

/** @param {Response} answer @returns {Promise<Failure>} */
export async function failure(answer) {
  let words = (await answer.text().catch(() => '')).slice(0, WORDS_MAX);
  // A page of somebody's is for nobody to read here.
  if (answer.headers.get('content-type')?.startsWith('text/html')) words = '';
  try { words = JSON.parse(words).error ?? words; } catch { /* As it is. */ }
  return { status: answer.status, words: String(words) || `${answer.status} ${answer.statusText}`.trim(), retry: seconds(answer.headers.get('retry-after')) };
}
