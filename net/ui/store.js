// The records that are loaded, as the bytes that came: only what is shown is decoded.
//
// A row's number stays its own: rows put in front get smaller numbers, those dropped leave theirs.

import { fromBase64, level } from './text.js';
import { ulidMs } from './time.js';

/** @typedef {{ulid: string, ms: number, topic: string, text: string, hidden: number, level: string, fields?: Map<string, string>}} Row */
/** @typedef {{first: number, bytes: Uint8Array, ends: Uint32Array}} Chunk */

/** What a row shows of its record, characters. */
export const SHOWN = 4096;
const LONG = 16384;
const CACHE_MAX = 512;
const decoder = new TextDecoder();

export class Store {
  constructor() {
    /** @type {Chunk[]} */
    this.chunks = [];
    this.first = 0;
    this.end = 0;
    this.bytes = 0;
    /** @type {Map<number, Row>} */
    this.cache = new Map();
  }

  get length() { return this.end - this.first; }

  /** @param {Uint8Array} bytes @param {Uint32Array} ends */
  append(bytes, ends) {
    this.chunks.push({ first: this.end, bytes, ends });
    this.end += ends.length;
    this.bytes += bytes.length;
  }

  /** Rows in the opposite order, in front of all others. @param {Uint8Array} bytes @param {Uint32Array} ends */
  prepend(bytes, ends) {
    const turned = new Uint8Array(bytes.length);
    const order = new Uint32Array(ends.length);
    let at = 0;
    for (let k = ends.length - 1; k >= 0; k--) {
      const line = bytes.subarray(k ? ends[k - 1] + 1 : 0, ends[k] + 1);
      turned.set(line, at);
      at += line.length;
      order[ends.length - 1 - k] = at - 1;
    }
    this.first -= ends.length;
    this.chunks.unshift({ first: this.first, bytes: turned, ends: order });
    this.bytes += bytes.length;
  }

  /** Lets the oldest go, whole chunks at a time, while more than `max` stay, and none from `until` on. @param {number} max @param {number} [until] */
  drop(max, until = this.end) {
    let dropped = 0;
    while (this.chunks.length > 1 && this.length - this.chunks[0].ends.length >= max && this.chunks[1].first <= until) {
      const { bytes, ends } = /** @type {Chunk} */ (this.chunks.shift());
      dropped += ends.length;
      this.first += ends.length;
      this.bytes -= bytes.length;
    }
    return dropped;
  }

  /** @param {number} index */
  line(index) {
    let [low, high] = [0, this.chunks.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.chunks[middle].first <= index) low = middle; else high = middle - 1;
    }
    const { first, bytes, ends } = this.chunks[low];
    const at = index - first;
    return bytes.subarray(at ? ends[at - 1] + 1 : 0, ends[at]);
  }

  /** The whole record. @param {number} index */
  whole(index) {
    const object = JSON.parse(decoder.decode(this.line(index)));
    const isText = object.record_b64 === undefined;
    return { ...object, isText, text: isText ? object.record : fromBase64(object.record_b64) };
  }

  /** Its text, of a longer one the beginning. @param {number} index @param {number} most Bytes that are read whole. */
  text(index, most) { return this.line(index).length <= most ? this.whole(index).text : this.row(index).text; }

  /** What a row shows. @param {number} index @returns {Row} */
  row(index) {
    const cached = this.cache.get(index);
    if (cached) return cached;
    const line = this.line(index);
    const { ulid, topic, text, hidden } = line.length > LONG ? beginning(line) : short(line);
    const row = { ulid, ms: ulidMs(ulid), topic, text, hidden, level: level(text) };
    if (this.cache.size >= CACHE_MAX) this.cache.clear();
    this.cache.set(index, row);
    return row;
  }

  /** @param {number} index */
  ulid(index) { return decoder.decode(this.line(index).subarray(9, 35)); }

  /** Number of the row with a ULID, or of the next one behind it. @param {string} ulid @param {boolean} descending */
  find(ulid, descending) {
    let [low, high] = [this.first, this.end];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const own = this.ulid(middle);
      if (descending ? own > ulid : own < ulid) low = middle + 1; else high = middle;
    }
    return low;
  }
}

/** @param {Uint8Array} line */
function short(line) {
  const object = JSON.parse(decoder.decode(line));
  const text = object.record ?? fromBase64(object.record_b64);
  return { ulid: object.ulid, topic: object.topic, ...cut(text, text.length) };
}

/** @param {string} text @param {number} [length] */
export function cut(text, length = text.length) {
  if (text.length <= SHOWN) return { text, hidden: length - text.length };
  const end = /[\ud800-\udbff]/.test(text[SHOWN - 1]) ? SHOWN - 1 : SHOWN;
  return { text: text.slice(0, end), hidden: length - end };
}

/** Of a long one only its beginning is read. @param {Uint8Array} line */
function beginning(line) {
  const start = decoder.decode(line.subarray(0, 2 * SHOWN));
  const found = /"topic":"([^"]*)","record(_b64)?":"/.exec(start);
  if (!found) return short(line);
  const at = found.index + found[0].length;
  const ulid = start.slice(9, 35);
  const left = line.length - at - 2;
  if (found[2]) {
    const coded = start.slice(at);
    return { ulid, topic: found[1], ...cut(fromBase64(coded.slice(0, coded.length & ~3)), Math.floor(left * 3 / 4)) };
  }
  // An escape is not cut through, nor the last character of what was decoded.
  const whole = /^(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*/.exec(start.slice(at, -4));
  const text = JSON.parse(`"${whole ? whole[0] : ''}"`);
  return { ulid, topic: found[1], ...cut(text, left) };
}
