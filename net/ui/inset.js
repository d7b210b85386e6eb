// The records around one within the list: before and behind its row, as parts of it.

import { around } from './context.js';
import { colour } from './rows.js';
import { cut } from './store.js';
import { fillRow, fromBase64 } from './text.js';
import { full, ulidMs } from './time.js';
import { W } from './words.js';

export const AROUND = 10;
export const AROUND_MAX = 1000;
export const MORE = 50;

/** @param {string} tag @param {string} kind @param {string} [text] */
export function make(tag, kind, text) {
  const element = document.createElement(tag);
  element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @param {string} text @param {() => void} act @param {string} [kind] */
export function button(text, act, kind = '') {
  const element = /** @type {HTMLButtonElement} */ (make('button', kind, text));
  element.type = 'button';
  element.addEventListener('click', act);
  return element;
}

/** A record beside another one. @param {any} one @param {{zone: string, isEveryTopic: boolean, matches: (text: string) => number[]}} look */
export function neighbour(one, { zone, isEveryTopic, matches }) {
  const item = make('li', '');
  const { text, hidden } = cut(one.text ?? one.record ?? fromBase64(one.record_b64));
  const cell = make('span', 'text');
  fillRow(cell, text, hidden, matches);
  item.append(make('time', '', full(ulidMs(one.ulid), zone).slice(11)), ' ');
  if (isEveryTopic) item.append(make('span', `topic ${colour(one.topic)}`, one.topic), ' ');
  item.append(cell);
  return item;
}

/** @param {boolean} isChecked @param {(isChecked: boolean) => void} onChange */
export function everyTopic(isChecked, onChange) {
  const every = document.createElement('input');
  every.type = 'checkbox';
  every.checked = isChecked;
  every.onchange = () => onChange(every.checked);
  const label = make('label', 'every');
  label.append(every, ` ${W.allTopics}`);
  return label;
}

export class Inset {
  /** @param {import('./rows.js').Rows} rows @param {{isDescending: () => boolean, onContext: (n: number, ulid: string) => void, onPanel: () => void, onClose: () => void}} with_ */
  constructor(rows, with_) {
    this.rows = rows;
    this.with = with_;
    /** @type {any} */
    this.record = null;
    this.index = NaN;
    this.isEveryTopic = false;
    this.counts = [AROUND, AROUND];
    /** Which answer is waited for. */
    this.turn = 0;
  }

  get isOpen() { return Boolean(this.record); }

  /** So many before and behind a row. @param {number} index @param {any} record @param {number} [before] @param {number} [after] */
  async show(index, record, before = AROUND, after = before) {
    [before, after] = [Math.min(before, AROUND_MAX), Math.min(after, AROUND_MAX)];
    [this.record, this.index, this.counts] = [record, index, [before, after]];
    const turn = ++this.turn;
    this.with.onContext(Math.max(before, after), record.ulid);
    /** @type {HTMLElement[]} */
    let parts;
    try {
      const found = await around(record, before, after, this.isEveryTopic);
      if (this.turn !== turn) return;
      parts = this.blocks(found, before, after);
    } catch (error) {
      if (this.turn !== turn) return;
      parts = [this.block('', [this.acts(before, after), make('p', 'bad', `${W.noContext}: ${/** @type {any} */ (error).words ?? /** @type {any} */ (error).message}`)])];
    }
    this.rows.inset({ index, parts });
  }

  /** @param {{before: any[], after: any[], isComplete: boolean}} found @param {number} before @param {number} after */
  blocks(found, before, after) {
    const look = { zone: this.rows.zone, isEveryTopic: this.isEveryTopic, matches: this.rows.matches };
    const list = (/** @type {any[]} */ all) => {
      const element = make('ol', 'around');
      element.append(...all.map((one) => neighbour(one, look)));
      return element;
    };
    const again = (/** @type {number} */ b, /** @type {number} */ a) => () => this.show(this.index, this.record, b, a);
    const acts = this.acts(before, after);
    const earlier = found.before.length === before && before < AROUND_MAX ? [button(W.before50, again(before + MORE, after), 'more-before')] : [];
    const later = found.after.length === after && after < AROUND_MAX ? [button(W.after50, again(before, after + MORE), 'more-after')] : [];
    // In the order of the list.
    const isDown = this.with.isDescending();
    acts.append(...(isDown ? later : earlier));
    const [first, last] = isDown ? [found.after.reverse(), found.before.reverse()] : [found.before, found.after];
    const above = [acts, ...(found.isComplete ? [] : [make('p', 'amber', W.incomplete)]), list(first)];
    const below = [list(last), ...(isDown ? earlier : later)];
    return [this.block('above', above), this.block('below', below)];
  }

  /** @param {string} kind @param {HTMLElement[]} parts */
  block(kind, parts) {
    const block = make('span', `inset ${kind}`);
    block.setAttribute('role', 'gridcell');
    block.append(...parts);
    return block;
  }

  /** @param {number} before @param {number} after */
  acts(before, after) {
    const acts = make('span', 'acts');
    const every = everyTopic(this.isEveryTopic, (isChecked) => { this.isEveryTopic = isChecked; this.show(this.index, this.record, before, after); });
    const close = button('×', () => this.close());
    close.title = W.noneAround;
    close.setAttribute('aria-label', W.noneAround);
    acts.append(make('strong', '', W.context), every, button(W.inPanel, () => this.with.onPanel(), 'in-panel'), close);
    return acts;
  }

  /** What is shown goes with its rows: nothing is told. */
  drop() { this.record = null; this.index = NaN; this.turn++; }

  /** The same as it looks now. */
  again() { if (this.isOpen) this.show(this.index, this.record, ...this.counts); }

  close() {
    if (!this.isOpen) return;
    this.drop();
    this.rows.inset(null);
    this.with.onClose();
  }
}
