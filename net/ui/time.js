// Times: as records carry them, and as people read them.

const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

/** Milliseconds of a ULID. @param {string} ulid */
export function ulidMs(ulid) {
  let ms = 0;
  for (const digit of ulid.slice(0, 10)) ms = ms * 32 + ALPHABET.indexOf(digit);
  return ms;
}

/** The first ULID of a millisecond. @param {number} ms */
export function ulidOf(ms) {
  let out = '';
  for (let left = ms, k = 0; k < 10; k++, left = Math.floor(left / 32)) out = ALPHABET[left % 32] + out;
  return out + '0'.repeat(16);
}

/** Of a bound as the node tells it: RFC 3339, or a ULID. @param {string} text */
export const boundMs = (text) => (/^[0-7][0-9A-Z]{25}$/.test(text) ? ulidMs(text) : Date.parse(text));

/** @param {number} ms */
export const iso = (ms) => new Date(ms).toISOString();

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();

/** `2026-11-30 14:15:12.036` in a zone; empty is the browser's own. @param {number} ms @param {string} zone */
export function full(ms, zone) {
  let format = formats.get(zone);
  if (!format) {
    const own = zone && zone !== 'local' ? zone : undefined;
    format = new Intl.DateTimeFormat('sv-SE', {
      timeZone: own, year: 'numeric', month: '2-digit', day: '2-digit',
      hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
    });
    formats.set(zone, format);
  }
  return Math.abs(ms) < 8.64e15 ? format.format(ms).replace(',', '.') : '∞';
}

/** A zone that the browser knows, or none. @param {string} zone */
export function known(zone) {
  try { full(0, zone); return zone; } catch { return ''; }
}

/** @param {number} ms @param {number} now */
export function ago(ms, now) {
  const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
  const seconds = (ms - now) / 1000;
  for (const [unit, length] of /** @type {[Intl.RelativeTimeFormatUnit, number][]} */ ([['day', 86400], ['hour', 3600], ['minute', 60]])) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return relative.format(Math.round(seconds), 'second');
}
