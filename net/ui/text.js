// From the bytes of a record to what is shown of it: never markup, no character that moves others.
//
// Bytes that are no UTF-8 travel as lone surrogates U+DC80 to U+DCFF, which no text has.

import { bytes } from './words.js';

/** @typedef {{text: string, kind: string}} Run */

// eslint-disable-next-line no-control-regex
const SPECIAL = /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|(?<![\ud800-\udbff])[\udc80-\udcff]/g;

const hex = (/** @type {number} */ n) => n.toString(16).padStart(2, '0');

/** A character as a picture or a number. @param {string} c */
function picture(c) {
  const code = c.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return '␡';
  if (code < 0xa0) return `\\x${hex(code)}`;
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${hex(code - 0xdc00)}`;
  return `\\u{${code.toString(16)}}`;
}

/** Colour 0 to 15 next to one of the 256, or of red, green and blue. @param {number[]} of */
function nearest(of) {
  let [r, g, b] = of;
  if (of.length === 1) {
    if (r < 16) return r;
    if (r >= 232) return r < 238 ? 8 : r < 250 ? 7 : 15;
    const cube = r - 16;
    [r, g, b] = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((part) => part * 51);
  }
  const top = Math.max(r, g, b);
  const bit = (/** @type {number} */ part) => (part > top * 0.6 && top > 40 ? 1 : 0);
  const index = bit(r) + 2 * bit(g) + 4 * bit(b);
  return index + (top > 170 && index < 7 ? 8 : 0);
}

/** What a sequence of graphic renditions makes of the classes so far. @param {Set<string>} kinds @param {string} codes */
function rendition(kinds, codes) {
  const clear = (/** @type {string} */ start) => { for (const kind of kinds) if (kind.startsWith(start)) kinds.delete(kind); };
  const all = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < all.length; at++) {
    const code = all[at];
    if (code === 0) kinds.clear();
    else if (code === 1) kinds.add('bold');
    else if (code === 2) kinds.add('dim');
    else if (code === 3) kinds.add('ital');
    else if (code === 4) kinds.add('line');
    else if (code === 22) { kinds.delete('bold'); kinds.delete('dim'); }
    else if (code === 23) kinds.delete('ital');
    else if (code === 24) kinds.delete('line');
    else if (code === 39) clear('f');
    else if (code === 49) clear('b-');
    else {
      let colour = -1;
      let where = code >= 40 && code < 50 || code >= 100 ? 'b-' : 'f';
      if (code >= 30 && code <= 37 || code >= 40 && code <= 47) colour = code % 10;
      else if (code >= 90 && code <= 97 || code >= 100 && code <= 107) colour = code % 10 + 8;
      else if (code === 38 || code === 48) {
        const count = all[at + 1] === 5 ? 1 : 3;
        colour = nearest(all.slice(at + 2, at + 2 + count));
        at += 1 + count;
      }
      if (colour >= 0 && colour < 16) { clear(where); kinds.add(where + colour); }
    }
  }
}

/** Of a row, and of other short text, so many runs are shown: each is an element. */
const RUNS_MAX = 256;
/** So many special ones for each run that is asked for: they cost more to draw than text does. */
const SPECIAL_MAX = 16;

/**
 * Runs of text, neighbours of different kinds, and where they end: at the end of the text, or once there are
 * `most` of them or many special characters. With `raw`, escape sequences are shown as they are in place of what they mean.
 * @param {string} text @param {boolean} [raw] @param {number} [most] @returns {{all: Run[], end: number}}
 */
export function runs(text, raw = false, most = RUNS_MAX) {
  /** @type {Run[]} */
  const out = [];
  /** @type {Set<string>} */
  const kinds = new Set();
  let [done, special] = [0, 0];
  const push = (/** @type {string} */ piece, /** @type {string} */ kind) => {
    const last = out[out.length - 1];
    if (last && last.kind === kind) last.text += piece;
    else if (piece) out.push({ text: piece, kind });
  };
  for (const found of text.matchAll(SPECIAL)) {
    const at = /** @type {number} */ (found.index);
    // What is between two, and the second one, may be a run each.
    if (out.length + 2 > most && at > done || ++special > SPECIAL_MAX * most) return { all: out, end: done };
    const [all, codes] = found;
    push(text.slice(done, at), [...kinds].join(' '));
    done = at + all.length;
    if (raw || all.length === 1) {
      if (all === '\n' && raw) push('␊\n', 'esc');
      else { push(picture(all[0]), 'esc'); if (all.length > 1) push(all.slice(1).replace(SPECIAL, picture), 'esc'); }
    } else if (codes !== undefined) rendition(kinds, codes);
  }
  push(text.slice(done), [...kinds].join(' '));
  return { all: out, end: text.length };
}

/** Fills an element with runs, and marks what matches. @param {HTMLElement} element @param {Run[]} all @param {(text: string) => number[]} matches */
export function fill(element, all, matches) {
  const plain = all.length === 1 ? all[0].text : all.map((run) => run.text).join('');
  const marks = matches(plain);
  if (all.length === 1 && !all[0].kind && !marks.length) { element.textContent = plain; return false; }
  const out = document.createDocumentFragment();
  let base = 0;
  let next = 0;
  const piece = (/** @type {Node} */ into, /** @type {string} */ text, /** @type {string} */ kind, /** @type {boolean} */ marked) => {
    const node = marked ? document.createElement('mark') : kind ? document.createElement('span') : null;
    if (!node) { into.appendChild(document.createTextNode(text)); return; }
    node.textContent = text;
    if (kind) node.className = kind;
    into.appendChild(node);
  };
  for (const { text, kind } of all) {
    const end = base + text.length;
    let at = base;
    while (at < end) {
      while (next < marks.length && marks[next + 1] <= at) next += 2;
      const start = marks[next] ?? Infinity;
      const stop = marks[next + 1] ?? Infinity;
      const inside = start <= at;
      const until = Math.min(end, inside ? stop : start);
      piece(out, text.slice(at - base, until - base), kind, inside);
      at = until;
    }
    base = end;
  }
  element.replaceChildren(out);
  return marks.length > 0;
}

/** Fills an element with what a row shows of a text, and tells how much it does not. @param {HTMLElement} element @param {string} text @param {number} hidden @param {(text: string) => number[]} matches */
export function fillRow(element, text, hidden, matches) {
  const { all, end } = runs(text);
  const isMarked = fill(element, all, matches);
  const left = hidden + text.length - end;
  if (left > 0) {
    const more = document.createElement('span');
    more.className = 'more';
    more.textContent = ` +${bytes(left)}`;
    element.appendChild(more);
  }
  return isMarked;
}

const MARKS_MAX = 200;

/** Of a row so much is searched for expressions, characters. */
const SEARCHED = 1000;
const SOURCE_MAX = 200;
/** What calls may take beyond a usual one before an expression is given up, milliseconds. */
const USUAL_MS = 2;
const SLOW_MS = 250;

/**
 * Whether an expression may be run here: the browser's engine tries every way to match, where the node's takes
 * them all at once. Tame is what has no more ways at a place than one `*` has.
 * @param {string} source
 */
export function isTame(source) {
  if (/\\[1-9k]/.test(source)) return false;
  const bare = source.replace(/\\[^]|\[(?:\\[^]|[^\]\\])*\]/g, '-').replaceAll('(?:', '(');
  if (/\)(?:[*+]|\{\d)/.test(bare)) return false;
  let [ways, length] = [1, source.length];
  for (const [sign, least, comma, most] of bare.matchAll(/[*+?|]|\{(\d+)(,?)(\d*)\}/g)) {
    if (sign === '|') ways *= bare.includes('(') ? 2 : 1;
    else if (sign === '?') ways *= 2;
    else if (!least || comma && !most) ways *= SEARCHED;
    else if (comma) ways *= Math.max(1, Number(most) - Number(least) + 1);
    length += Number(most || least || 0);
  }
  return ways <= SEARCHED && length <= SOURCE_MAX;
}

/**
 * Where expressions match: pairs of start and end.
 * @param {{q: string[], regex: boolean, i: boolean}} state @returns {(text: string) => number[]}
 */
export function matcher({ q, regex, i }) {
  /** @type {RegExp[]} */
  const all = [];
  for (const text of q) {
    if (regex && !isTame(text)) continue;
    const source = regex ? text : text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&');
    try { all.push(new RegExp(source, i ? 'gi' : 'g')); } catch { /* Not of this dialect: nothing is marked. */ }
  }
  if (!all.length) return () => [];
  let slow = 0;
  return (text) => {
    /** @type {[number, number][]} */
    const found = [];
    for (const one of all) {
      if (slow > SLOW_MS) break;
      const before = performance.now();
      for (const { index, 0: match } of (regex ? text.slice(0, SEARCHED) : text).matchAll(one)) {
        if (match) found.push([/** @type {number} */ (index), index + match.length]);
        if (found.length >= MARKS_MAX) break;
      }
      if (regex) slow += Math.max(0, performance.now() - before - USUAL_MS);
    }
    found.sort((a, b) => a[0] - b[0]);
    /** @type {number[]} */
    const out = [];
    for (const [start, end] of found) {
      const last = out[out.length - 1] ?? -1;
      if (start > last || !out.length) out.push(start, end);
      else if (end > last) out[out.length - 1] = end;
    }
    return out;
  };
}

/** Text of bytes; what is none becomes lone surrogates. @param {Uint8Array} bytes */
export function lossless(bytes) {
  const out = [];
  let piece = '';
  const take = (/** @type {number} */ at, /** @type {number} */ n, /** @type {number} */ first, /** @type {number} */ min) => {
    let code = first;
    for (let k = 1; k <= n; k++) {
      const next = bytes[at + k];
      if (next === undefined || next >> 6 !== 2) return -1;
      code = code << 6 | next & 63;
    }
    return code < min || code > 0x10ffff || code >= 0xd800 && code < 0xe000 ? -1 : code;
  };
  for (let at = 0; at < bytes.length;) {
    const b = bytes[at];
    let [code, n] = [b, 0];
    if (b >= 0xf0 && b < 0xf8) [code, n] = [take(at, 3, b & 7, 0x10000), 3];
    else if (b >= 0xe0 && b < 0xf0) [code, n] = [take(at, 2, b & 15, 0x800), 2];
    else if (b >= 0xc0 && b < 0xe0) [code, n] = [take(at, 1, b & 31, 0x80), 1];
    else if (b >= 0x80) code = -1;
    if (code < 0) { piece += String.fromCharCode(0xdc00 + b); at++; } else { piece += String.fromCodePoint(code); at += n + 1; }
    if (piece.length > 4096) { out.push(piece); piece = ''; }
  }
  out.push(piece);
  return out.join('');
}

/** @param {string} base64 */
export const fromBase64 = (base64) => lossless(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));

const LEVEL = /\b(?:(fatal|panic|crit(?:ical)?|emerg)|(err(?:or)?|fail(?:ed|ure)?)|(warn(?:ing)?)|(info|notice)|(debug|trace))\b/i;
const NAMES = ['fatal', 'error', 'warn', 'info', 'debug'];

/** Level of a record, or none, as the node finds it (engine/src/levels.rs). @param {string} text */
export function level(text) {
  const head = (/** @type {number} */ units) => text.slice(0, units).replace(/\x1b\[[0-9;:]*m/g, ' ');
  const own = /"(?:level|severity|lvl)"[ \t]*:[ \t]*"(\w+)"|\blevel=(\w+)/i.exec(head(2000));
  const found = LEVEL.exec(own ? own[1] ?? own[2] : head(160));
  return found ? NAMES[found.slice(1).findIndex(Boolean)] : '';
}
export const GLYPHS = { fatal: '✖', error: '●', warn: '▲', info: '·', debug: '○', '': ' ' };
