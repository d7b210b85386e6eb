// What the page has to say of an answer: why it is none, what of it is missing, what to do.

import { boundMs, full } from './time.js';
import { tokenForm } from './token.js';
import { W } from './words.js';

const GAPS_SHOWN = 5;

/** @param {string} tag @param {string} text @param {string} [kind] */
function make(tag, text, kind = '') {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = kind;
  return element;
}

/** Why a request brought nothing, in words. @param {import('./ask.js').Failure} fail */
export function told(fail) {
  if (fail.brokeOff) return W.brokeOff;
  if (fail.status === 0) return W.offline;
  if (fail.status === 401) return W.unauthorized;
  if (fail.status === 403) return `${W.forbidden} ${fail.words}`;
  return fail.status === 429 ? `${W.tooMany} ${fail.words}` : fail.words;
}

export class Notes {
  /** @param {HTMLElement} box @param {HTMLElement} emptyBox */
  constructor(box, emptyBox) {
    this.box = box;
    this.emptyBox = emptyBox;
    /** @type {Map<string, HTMLElement>} */
    this.all = new Map();
    this.timer = 0;
  }

  clear() {
    clearInterval(this.timer);
    for (const name of [...this.all.keys()]) this.set(name, null);
    this.empty(null);
  }

  /** @param {string} name @param {{kind: string, words: string, more?: Node[]} | null} note */
  set(name, note) {
    const before = this.all.get(name);
    if (!note) { before?.remove(); this.all.delete(name); return; }
    if (before?.dataset.words === note.words && !note.more) return;
    const element = make('div', note.words, `note ${note.kind}`);
    element.dataset.name = name;
    element.dataset.words = note.words;
    element.setAttribute('role', note.kind === 'bad' ? 'alert' : 'status');
    element.append(...note.more ?? []);
    if (before) before.replaceWith(element); else this.box.append(element);
    this.all.set(name, element);
  }

  /** Nothing is tried again. */
  calm() { clearInterval(this.timer); }

  /** @param {string} words */
  flash(words) {
    this.set('flash', { kind: 'quiet', words });
    setTimeout(() => this.set('flash', null), 2500);
  }

  /** Spans that were not searched. @param {any[]} gaps @param {boolean} isComplete @param {string} zone */
  incomplete(gaps, isComplete, zone) {
    if (isComplete || !gaps.length) { this.set('incomplete', null); return; }
    const list = document.createElement('ul');
    for (const gap of gaps.slice(0, GAPS_SHOWN)) {
      const item = make('li', `${full(boundMs(gap.from), zone)} – ${full(boundMs(gap.to), zone)} · ${W.gap(gap.node, gap.reason)}`);
      list.append(item);
    }
    if (gaps.length > GAPS_SHOWN) list.append(make('li', W.andMore(gaps.length - GAPS_SHOWN)));
    this.set('incomplete', { kind: 'amber', words: W.incomplete, more: [list] });
  }

  /** @param {import('./ask.js').Failure} fail @param {() => void} again */
  failed(fail, again) {
    if (fail.status === -1) return;
    clearInterval(this.timer);
    const more = [/** @type {Node} */ (make('pre', told(fail)))];
    if (fail.status === 401 || fail.status === 403) more.push(tokenForm(again));
    if (fail.brokeOff) {
      const on = make('button', W.readOn);
      on.onclick = again;
      more.push(on);
    }
    const wait = fail.retry || (fail.status === 0 && !fail.brokeOff ? 3 : fail.status === 429 ? 5 : 0);
    this.set('failed', { kind: fail.brokeOff ? 'amber' : 'bad', words: '', more });
    if (!wait) return;
    let left = wait;
    const clock = make('span', W.retry(left), 'quiet');
    // Said once is enough.
    clock.setAttribute('aria-hidden', 'true');
    this.all.get('failed')?.append(clock);
    this.timer = setInterval(() => {
      left--;
      clock.textContent = W.retry(left);
      if (left <= 0) { clearInterval(this.timer); again(); }
    }, 1000);
  }

  /** @param {Node[] | null} parts */
  empty(parts) {
    this.emptyBox.hidden = !parts;
    this.emptyBox.replaceChildren(...parts ?? []);
  }

  /** @param {number} newest @param {string} zone @param {[string, () => void][]} acts */
  noMatch(newest, zone, acts) {
    const buttons = acts.map(([words, act]) => {
      const button = make('button', words);
      button.onclick = act;
      return button;
    });
    this.empty([make('h2', W.noMatch), make('p', W.newest(full(newest, zone)), 'quiet'), ...buttons]);
  }

  firstVisit() {
    const list = document.createElement('dl');
    const base = new URL('../', document.baseURI);
    for (const [name, command] of W.send) {
      const words = command.replace('HOST', base.hostname).replace('URL', base.href);
      list.append(make('dt', name), make('dd', words));
    }
    this.empty([make('h2', W.nothingKept), list]);
  }
}
