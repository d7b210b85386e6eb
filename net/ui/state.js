// What is asked, as it stands in the URL: the names are those of /query.

/**
 * @typedef {{q: string[], x: string[], regex: boolean, i: boolean, topic: string[], from: string, to: string,
 *   order: string, tz: string, at: string, live: boolean}} State
 */

const SWITCHES = ['regex', 'i', 'live'];

/** @param {string} search @returns {State} */
export function read(search) {
  const given = new URLSearchParams(search);
  const on = (/** @type {string} */ name) => ['', '1', 'true'].includes(given.get(name) ?? '0');
  const [regex, i, live] = SWITCHES.map(on);
  return {
    q: given.getAll('q').filter(Boolean), x: given.getAll('x').filter(Boolean), regex, i, live,
    topic: given.getAll('topic').filter(Boolean),
    from: given.get('from') || '1h', to: given.get('to') || '',
    order: given.get('order') === 'asc' ? 'asc' : 'desc',
    tz: given.get('tz') || '', at: given.get('at') || '',
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

/** @param {State} state */
export function write(state) {
  const out = asked(state);
  if (state.order !== 'desc') out.append('order', state.order);
  if (state.tz) out.append('tz', state.tz);
  if (state.live) out.append('live', '1');
  if (state.at) out.append('at', state.at);
  return `?${out}`;
}
