// The side panel: one record with all of its bytes and fields, and the records around it.

import { reach } from './ask.js';
import { colour } from './rows.js';
import { fill, fromBase64, runs } from './text.js';
import { ago, full, ulidMs } from './time.js';
import { W, bytes, number } from './words.js';

const FIELDS_MAX = 200;
/** So many runs are drawn at once, each an element; the next time more. */
const DRAWN = 4096;
const FIRST = '0'.repeat(26);

/** @param {string} tag @param {string} kind @param {string} [text] */
function make(tag, kind, text) {
  const element = document.createElement(tag);
  element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @param {string} text @param {() => void} act @param {string} [kind] */
function button(text, act, kind = '') {
  const element = /** @type {HTMLButtonElement} */ (make('button', kind, text));
  element.type = 'button';
  element.addEventListener('click', act);
  return element;
}

/** Fields of a record that is JSON or logfmt. @param {string} text @returns {[string, string, string][]} */
export function fields(text) {
  /** @type {[string, string, string][]} */
  const out = [];
  const brace = text.indexOf('{');
  if (brace >= 0 && text.length < 65536) {
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
  for (const [, name, quoted, bare] of text.slice(0, 65536).matchAll(/(?:^|\s)([A-Za-z_][\w.-]*)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))/g)) {
    if (out.length < FIELDS_MAX) out.push([name, quoted ?? bare, quoted ?? bare]);
  }
  return out;
}

export class Side {
  /** @param {HTMLElement} box @param {{zone: () => string, matches: () => (text: string) => number[], onCopy: (text: string) => void, onLink: () => void, onTerm: (text: string, out: boolean) => void, onClose: () => void}} with_ */
  constructor(box, with_) {
    this.box = box;
    this.with = with_;
    /** @type {any} */
    this.record = null;
    this.around = 0;
    box.setAttribute('aria-label', W.details);
  }

  get isOpen() { return !this.box.hidden; }

  close() { this.hide(); this.with.onClose(); }

  hide() { this.box.hidden = true; this.record = null; }

  /** @param {any} record */
  open(record) {
    this.record = record;
    this.around = 0;
    this.box.hidden = false;
    this.draw();
  }

  draw() {
    const { record } = this;
    const ms = ulidMs(record.ulid);
    const head = make('header', 'side-head');
    head.append(
      make('span', `topic ${colour(record.topic)}`, record.topic), make('time', '', full(ms, this.with.zone())),
      make('span', 'quiet', ago(ms, Date.now())), make('span', 'grow'), button('×', () => this.close(), 'close'),
    );
    const close = /** @type {HTMLElement} */ (head.lastChild);
    close.title = W.close;
    close.setAttribute('aria-label', W.close);
    const acts = make('div', 'acts');
    acts.append(
      button(W.copy, () => this.with.onCopy(record.text)), button(W.link, () => this.with.onLink()),
      button(W.context, () => this.context()), make('code', 'quiet', record.ulid),
    );
    const text = make('pre', 'whole');
    text.tabIndex = 0;
    const rest = make('p', 'amber rest');
    this.write(text, rest, 0, DRAWN);
    const parts = [head, acts, text, rest];
    if (!record.isText) parts.push(make('p', 'quiet', W.notText));
    else parts.push(make('p', 'quiet', bytes(new Blob([record.text]).size)));
    const found = record.text.length < 65536 ? fields(record.text) : [];
    if (found.length) parts.push(this.table(found));
    this.place = make('div', 'context');
    this.box.replaceChildren(...parts, this.place);
  }

  /** Writes of the record what stands behind `from`, as far as `most` runs go. @param {HTMLElement} into @param {HTMLElement} rest @param {number} from @param {number} most */
  write(into, rest, from, most) {
    const { text } = this.record;
    const { all, end } = runs(text.slice(from), true, most);
    const part = from ? into.appendChild(make('span', '')) : into;
    fill(part, all, text.length < 65536 ? this.with.matches() : () => []);
    const drawn = from + end;
    rest.hidden = drawn === text.length;
    rest.replaceChildren(W.drawn(number(drawn), number(text.length)), ' ', button(W.drawMore, () => this.write(into, rest, drawn, 2 * most)));
  }

  /** @param {[string, string, string][]} found */
  table(found) {
    const table = /** @type {HTMLTableElement} */ (make('table', 'fields'));
    for (const [name, value, raw] of found) {
      const row = table.insertRow();
      fill(row.insertCell(), runs(name.slice(0, 200), true).all, () => []);
      fill(row.insertCell(), runs(value.slice(0, 2000), true).all, () => []);
      const acts = row.insertCell();
      for (const [sign, out, words] of /** @type {[string, boolean, string][]} */ ([['+', false, W.include], ['−', true, W.exclude]])) {
        const one = button(sign, () => this.with.onTerm(raw, out), 'add');
        one.title = words;
        one.setAttribute('aria-label', `${words}: ${name}`);
        acts.append(one);
      }
    }
    return table;
  }

  /** The records of the same topic around this one, whatever was asked. */
  async context() {
    const { record, place } = this;
    if (!record || !place) return;
    this.around = this.around ? this.around + 50 : 10;
    const ask = async (/** @type {Record<string, string>} */ given) => {
      const query = new URLSearchParams({ topic: record.topic, after: record.ulid, limit: String(this.around), ...given });
      const answer = await reach(`query?${query}`, { headers: { accept: 'application/x-ndjson' } });
      if (!answer.ok) throw new Error(`${answer.status}`);
      const all = (await answer.text()).trimEnd().split('\n').map((line) => JSON.parse(line));
      const end = all[all.length - 1]?.end;
      if (end) all.pop();
      return { all, complete: Boolean(end?.complete) };
    };
    try {
      const [before, after] = await Promise.all([
        ask({ from: FIRST, to: record.ulid, order: 'desc' }), ask({ from: record.ulid, order: 'asc' }),
      ]);
      if (this.record !== record) return;
      const list = make('ol', 'around');
      for (const one of [...before.all.reverse(), { ...record, own: true }, ...after.all]) {
        const item = make('li', one.own ? 'own' : '');
        const text = one.text ?? one.record ?? fromBase64(one.record_b64);
        item.append(make('time', '', full(ulidMs(one.ulid), this.with.zone()).slice(11)), ' ');
        const cell = make('span', 'text');
        fill(cell, runs(text.slice(0, 4096)).all, this.with.matches());
        item.append(cell);
        list.append(item);
      }
      const foot = button(W.more50, () => this.context());
      place.replaceChildren(make('h2', '', W.context), list, foot);
      if (!before.complete || !after.complete) place.append(make('p', 'amber', W.incomplete));
      list.querySelector('.own')?.scrollIntoView({ block: 'center' });
    } catch (error) {
      place.replaceChildren(make('p', 'bad', `${W.noContext}: ${/** @type {any} */ (error).words ?? /** @type {any} */ (error).message}`));
    }
  }
}
