// Fields of records that are JSON or logfmt, of one and of all that are loaded, with their most frequent values.
//
// Nothing but what is loaded is looked at, which is said. A term for a value is as the record has it with its
// name, so that it finds that value of that field and no other.

import { fill, runs } from './text.js';
import { W, count, number } from './words.js';

/** A name, the value as it is read, and as it stands in the record. @typedef {[string, string, string]} Field */

const FIELDS_MAX = 200;
export const PARSED_MAX = 65536;
/** So many records are looked at, evenly chosen where there are more. */
const SAMPLE = 10_000;
/** So long at a time, milliseconds. */
const SLICE_MS = 8;
const VALUES_MAX = 1000;
const TOP = 10;

/** Fields of a record that is JSON or logfmt. @param {string} text @returns {Field[]} */
export function fields(text) {
  /** @type {Field[]} */
  const out = [];
  const brace = text.indexOf('{');
  if (brace >= 0 && text.length < PARSED_MAX) {
    try {
      const walk = (/** @type {any} */ value, /** @type {string} */ name) => {
        if (out.length >= FIELDS_MAX) return;
        if (value && typeof value === 'object') for (const [key, inner] of Object.entries(value)) walk(inner, name ? `${name}.${key}` : key);
        else out.push([name, String(value), typeof value === 'string' ? JSON.stringify(value).slice(1, -1) : String(value)]);
      };
      walk(JSON.parse(text.slice(brace)), '');
      return out;
    } catch { out.length = 0; }
  }
  for (const [, name, quoted, bare] of text.slice(0, PARSED_MAX).matchAll(/(?:^|\s)([A-Za-z_][\w.-]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))/g)) {
    if (out.length < FIELDS_MAX) out.push([name, quoted ?? bare, quoted ?? bare]);
  }
  return out;
}

const escaped = (/** @type {string} */ text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** What finds a field's value: as it stands in a record that has it. @param {string} text @param {Field} field */
export function termOf(text, [name, , raw]) {
  const [key, value] = [escaped(name.slice(name.lastIndexOf('.') + 1)), escaped(raw)];
  // What ends a bare value belongs to it: 50 is not 500.
  const found = new RegExp(`"${key}"\\s*:\\s*(?:"${value}"|${value}\\s*[,}])`).exec(text)
    ?? new RegExp(`(?<!\\S)${escaped(name)}=(?:"${value}"|${value}(?:\\s|$))`).exec(text);
  return found ? found[0] : raw;
}

/** Buttons that ask for a value and that leave it out; a click with Alt is the other one. @param {string} name @param {(out: boolean) => void} term */
export function termButtons(name, term) {
  return /** @type {[string, boolean, string][]} */ ([['+', false, W.include], ['−', true, W.exclude]]).map(([sign, out, words]) => {
    const one = document.createElement('button');
    one.type = 'button';
    one.className = 'add';
    one.textContent = sign;
    one.title = words;
    one.setAttribute('aria-label', `${words}: ${name}`);
    one.onclick = (event) => term(out !== event.altKey);
    return one;
  });
}

/** A button that makes a field a column, or no longer. @param {string} name @param {boolean} isColumn @param {() => void} act */
export function columnButton(name, isColumn, act) {
  const one = document.createElement('button');
  one.type = 'button';
  one.className = 'add column';
  one.textContent = '▥';
  one.title = W.column;
  one.setAttribute('aria-label', `${W.column}: ${name}`);
  one.setAttribute('aria-pressed', String(isColumn));
  one.onclick = act;
  return one;
}

/** @typedef {{records: number, values: Map<string, {count: number, index: number, field: Field}>}} Found */

export class FieldsPanel {
  /** @param {HTMLElement} box @param {{columns: () => string[], onTerm: (text: string, out: boolean) => void, onColumn: (name: string) => void}} with_ */
  constructor(box, with_) {
    this.box = box;
    this.with = with_;
    /** @type {Map<string, Found>} */
    this.found = new Map();
    /** @type {Set<string>} */
    this.opened = new Set();
    this.turn = 0;
    this.seen = 0;
    this.of = NaN;
  }

  /** Ends what goes on. */
  close() { this.turn++; this.of = NaN; }

  /** Looks at what is loaded, if that has changed. @param {import('./store.js').Store} store */
  async look(store) {
    if (this.of === store.length) return;
    const turn = ++this.turn;
    const [first, length] = [store.first, this.of = store.length];
    const most = Math.min(length, SAMPLE);
    /** @type {Map<string, Found>} */
    const found = new Map();
    let until = performance.now() + SLICE_MS;
    for (let k = 0; k < most; k++) {
      const index = first + Math.floor(k * length / most);
      if (index < store.first) continue;
      take(found, fields(store.text(index, PARSED_MAX)), index);
      if (performance.now() < until) continue;
      await new Promise((go) => { setTimeout(go); });
      if (turn !== this.turn) return;
      until = performance.now() + SLICE_MS;
    }
    this.store = store;
    this.found = found;
    this.seen = most;
    this.draw();
  }

  draw() {
    const whole = count(this.of, 'record');
    const note = document.createElement('p');
    note.className = 'quiet';
    note.textContent = this.seen < this.of ? W.sampled(number(this.seen), number(this.of)) : W.ofLoaded(whole);
    const all = [...this.found].sort((a, b) => b[1].records - a[1].records).slice(0, FIELDS_MAX);
    if (!all.length) note.textContent += ` ${W.noFields}`;
    this.box.replaceChildren(note, ...all.map(([name, found]) => this.field(name, found)));
  }

  /** @param {string} name @param {Found} found */
  field(name, found) {
    const one = document.createElement('details');
    one.className = 'field';
    one.open = this.opened.has(name);
    const head = document.createElement('summary');
    const title = document.createElement('span');
    fill(title, runs(name.slice(0, 200), true).all, () => []);
    const share = document.createElement('span');
    share.className = 'quiet';
    share.textContent = `${number(found.records)} · ${Math.round(found.records / Math.max(1, this.seen) * 100)} %`;
    head.append(title, share);
    const column = columnButton(name, this.with.columns().includes(name), () => { this.with.onColumn(name); this.draw(); });
    const list = () => { if (one.open) this.opened.add(name); else this.opened.delete(name); if (one.open && !one.querySelector('ul')) one.append(this.values(name, found)); };
    one.append(head);
    one.addEventListener('toggle', list);
    list();
    const line = document.createElement('div');
    line.className = 'field-line';
    line.append(one, column);
    return line;
  }

  /** The most frequent ones. @param {string} name @param {Found} found */
  values(name, found) {
    const list = document.createElement('ul');
    const all = [...found.values.values()].sort((a, b) => b.count - a.count);
    for (const value of all.slice(0, TOP)) {
      const item = document.createElement('li');
      const bar = document.createElement('meter');
      bar.max = found.records;
      bar.value = value.count;
      bar.setAttribute('aria-label', W.share);
      const text = document.createElement('button');
      text.type = 'button';
      text.className = 'value';
      text.title = W.valueHint;
      fill(text, runs(value.field[1].slice(0, 200), true).all, () => []);
      const term = (/** @type {boolean} */ out) => {
        const { store } = this;
        // What was let go of meanwhile is asked for without its name.
        const record = store && value.index >= store.first ? store.text(value.index, PARSED_MAX) : '';
        this.with.onTerm(termOf(record, value.field), out);
      };
      text.onclick = (event) => term(event.altKey);
      const n = document.createElement('span');
      n.className = 'quiet';
      n.textContent = number(value.count);
      item.append(text, n, bar, ...termButtons(`${name} ${value.field[1].slice(0, 50)}`, term));
      list.append(item);
    }
    if (all.length > TOP) list.append(W.andMore(all.length - TOP));
    return list;
  }
}

/** @param {Map<string, Found>} found @param {Field[]} all @param {number} index */
function take(found, all, index) {
  /** @type {Set<string>} */
  const names = new Set();
  for (const field of all) {
    const [name, text] = field;
    let own = found.get(name);
    if (!own) {
      if (found.size >= 5 * FIELDS_MAX) continue;
      found.set(name, own = { records: 0, values: new Map() });
    }
    if (!names.has(name)) { names.add(name); own.records++; }
    const value = own.values.get(text);
    if (value) value.count++;
    else if (own.values.size < VALUES_MAX) own.values.set(text, { count: 1, index, field });
  }
}
