// What is asked, as it stands in the URL: the names are those of /query.

/**
 * @typedef {{q: string[], x: string[], regex: boolean, i: boolean, topic: string[], from: string, to: string,
 *   order: string, tz: string, cols: string[], by: string, at: string, context: number, inline: boolean, live: boolean}} State
 */

const COLUMNS_MAX = 16;
const SWITCHES = ['regex', 'i', 'live', 'inline'];

/** @param {string} text */
function names(text) {
  const decoded = (/** @type {string} */ one) => { try { return decodeURIComponent(one); } catch { return one; } };
  return [...new Set(text.split(',').filter(Boolean).map(decoded))].slice(0, COLUMNS_MAX);
}

/** @param {string} search @returns {State} */
export function read(search) {
  const given = new URLSearchParams(search);
  const on = (/** @type {string} */ name) => ['', '1', 'true'].includes(given.get(name) ?? '0');
  const [regex, i, live, inline] = SWITCHES.map(on);
  return {
    q: given.getAll('q').filter(Boolean), x: given.getAll('x').filter(Boolean), regex, i, live, inline,
    topic: given.getAll('topic').filter(Boolean),
    from: given.get('from') || '1h', to: given.get('to') || '',
    order: given.get('order') === 'asc' ? 'asc' : 'desc',
    tz: given.get('tz') || '', cols: names(given.get('cols') ?? ''), by: ['topic', 'level'].includes(given.get('by') ?? '') ? given.get('by') ?? '' : '',
    at: given.get('at') || '', context: Math.max(0, Math.min(1000, Math.floor(Number(given.get('context'))) || 0)),
  };
}

/** What both the page and the node take. @param {State} state */
export function asked(state) {
  const out = new URLSearchParams();
  for (const name of /** @type {const} */ (['q', 'x', 'topic'])) for (const value of state[name]) out.append(name, value);
  if (state.regex) out.append('regex', '1');
  if (state.i) out.append('i', '1');
  out.append('from', state.from);
  if (state.to) out.append('to', state.to);
  return out;
}

/** What is asked, without where one stands in it and how it looks. @param {State} state */
export const bare = (state) => write({ ...state, at: '', context: 0, cols: [], by: '', tz: '', live: false });

/** @param {State} state */
export function write(state) {
  const out = asked(state);
  if (state.order !== 'desc') out.append('order', state.order);
  if (state.tz) out.append('tz', state.tz);
  // Commas stand between names.
  if (state.cols.length) out.append('cols', state.cols.map((one) => one.replace(/[,%]/g, encodeURIComponent)).join(','));
  if (state.by) out.append('by', state.by);
  if (state.live) out.append('live', '1');
  if (state.at) out.append('at', state.at);
  if (state.at && state.context) {
    out.append('context', String(state.context));
    if (state.inline) out.append('inline', '1');
  }
  return `?${out}`;
}
