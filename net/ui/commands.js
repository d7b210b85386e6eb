// What is asked, as commands for a shell.

import { url } from './ask.js';
import { needsToken } from './token.js';

/** One word of a POSIX shell. @param {string} text */
const word = (text) => (/^[\w.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** @param {URLSearchParams} query */
export function curl(query) {
  const given = [...query].map(([name, value]) => `--data-urlencode ${word(`${name}=${value}`)}`);
  const token = needsToken() ? '-H "Authorization: Bearer $TOKEN" ' : '';
  return `curl -fsSG ${token}${given.join(' ')} ${word(url('query'))}`;
}

/** @param {URLSearchParams} query */
export function oklogd(query) {
  const flags = [...query].map(([name, value]) => {
    if (name === 'i') return '-i';
    if (name === 'regex') return '--regex';
    return name === 'q' || name === 'x' ? `-${name} ${word(value)}` : `--${name} ${word(value)}`;
  });
  const base = new URL(url(''));
  const isPlain = base.protocol === 'http:' && base.pathname === '/';
  return `oklogd query --store ${word(isPlain ? base.host : base.href)} ${flags.join(' ')}`;
}
