// The newest records as they come: a few of them, drawn once a frame however many come.

import { follow, records } from './ask.js';
import { again, failureOf, head, link, make, why } from './cards.js';
import { found } from './drawn.js';
import { colour } from './rows.js';
import { Store } from './store.js';
import { GLYPHS, fill, runs } from './text.js';
import { full, iso, ulidOf } from './time.js';
import { O, W, bytes, number } from './words.js';

const SHOWN = 15;
const RATE_MS = 5000;
/** A row that is linked to is shown among those of half an hour before it. */
const BEFORE_MS = 1800e3;

export class Newest {
  /** @param {HTMLElement} box @param {(fail: import('./ask.js').Failure | null) => void} onState */
  constructor(box, onState) {
    this.onState = onState;
    const { header, note, body } = head(box, O.newest);
    this.note = note;
    this.told = make('span', 'quiet');
    this.button = /** @type {HTMLButtonElement} */ (make('button', '', O.pause));
    this.button.type = 'button';
    this.button.onclick = () => this.pause(!this.isPaused);
    header.append(this.told, this.button);
    this.list = make('ol', 'feed');
    body.append(this.list);
    this.isPaused = false;
    this.isDue = false;
    this.missed = 0;
    this.unseen = 0;
    /** @type {[number, number][]} */
    this.came = [];
    this.store = new Store();
    this.end = () => {};
    this.timer = 0;
    this.clock = 0;
  }

  /** What is there, then what comes behind it. */
  start() {
    this.stop();
    this.store = new Store();
    this.came = [];
    const query = new URLSearchParams({ from: '7d', order: 'desc', limit: String(SHOWN) });
    this.end = records(query, {
      onRows: (all, ends) => { if (ends.length) this.store.prepend(all, ends); this.draw(); },
      onEnd: () => this.follow(),
      onFail: (fail) => this.failed(fail),
    });
    this.clock = setInterval(() => this.tell(), 1000);
  }

  stop() {
    this.end();
    clearTimeout(this.timer);
    clearInterval(this.clock);
  }

  follow() {
    const { store } = this;
    this.ok();
    const after = store.length ? store.ulid(store.end - 1) : ulidOf(Date.now() - 1000);
    this.end = follow(new URLSearchParams(), after, {
      onState: (isOn, fail) => { if (isOn) this.ok(); else this.gone(fail ?? { status: 0, words: '', retry: 0 }); },
      onRows: (all, ends) => {
        this.came.push([performance.now(), ends.length]);
        if (this.isPaused) this.unseen += ends.length;
        store.append(all, ends);
        store.drop(SHOWN);
        this.draw();
      },
      onNote: (name, data) => { if (name === 'missed') { this.missed += Number(data.records) || 0; this.tell(); } },
      onFail: (fail) => this.failed(fail),
    });
  }

  ok() {
    this.note.hidden = true;
    this.onState(null);
    this.tell();
  }

  /** It is tried again by itself. @param {import('./ask.js').Failure} fail */
  gone(fail) {
    this.note.textContent = fail.status ? W.liveRefused(fail.words) : W.liveOff;
    this.note.hidden = false;
    this.onState(fail);
  }

  /** @param {import('./ask.js').Failure} thrown */
  failed(thrown) {
    const fail = failureOf(thrown);
    if (fail.status === -1) return;
    this.gone(fail);
    this.note.textContent = why(fail);
    this.timer = setTimeout(() => this.start(), again(fail) * 1000);
  }

  /** @param {boolean} isPaused */
  pause(isPaused) {
    this.isPaused = isPaused;
    this.unseen = 0;
    this.button.textContent = isPaused ? O.goOn : O.pause;
    this.draw();
    this.tell();
  }

  tell() {
    const now = performance.now();
    while (this.came.length && now - this.came[0][0] > RATE_MS) this.came.shift();
    const rate = Math.round(this.came.reduce((sum, [, n]) => sum + n, 0) / RATE_MS * 1000);
    const words = [this.isPaused ? W.livePaused : W.liveOn, W.rate(number(rate))];
    if (this.unseen) words.push(`${number(this.unseen)} ${O.unseen}`);
    if (this.missed) words.push(`${number(this.missed)} ${O.leftOut}`);
    this.told.textContent = words.join(' · ');
  }

  /** With the next frame, unless one reads. */
  draw() {
    if (this.isDue || this.isPaused) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (this.isPaused || this.list.contains(document.activeElement) || this.isSelected()) return;
      const { store } = this;
      const rows = [];
      for (let at = store.end - 1; at >= Math.max(store.first, store.end - SHOWN); at--) rows.push(this.row(store.row(at)));
      this.list.replaceChildren(...rows);
    });
  }

  isSelected() {
    const selection = getSelection();
    return Boolean(selection && !selection.isCollapsed && this.list.contains(selection.anchorNode));
  }

  /** @param {import('./store.js').Row} row */
  row(row) {
    const time = link(found({ from: iso(row.ms - BEFORE_MS), at: row.ulid }), full(row.ms, '').slice(11));
    time.className = 'time';
    time.title = O.toRow;
    const topic = link(found({ topic: row.topic }), row.topic);
    topic.className = `topic ${colour(row.topic)}`;
    const text = make('span', 'text');
    const { all, end } = runs(row.text);
    fill(text, all, () => []);
    const hidden = row.hidden + row.text.length - end;
    if (hidden > 0) text.append(make('span', 'more', ` +${bytes(hidden)}`));
    return make('li', `row ${row.level}`, time, make('span', 'level', GLYPHS[/** @type {keyof typeof GLYPHS} */ (row.level)]), topic, text);
  }
}
