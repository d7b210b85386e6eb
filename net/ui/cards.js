// A box of the overview: it asks for itself, again and again, and what goes wrong is said in it alone.

import { object } from './ask.js';
import { told } from './notes.js';
import { O, W } from './words.js';

/** Who makes others work asks less often: so many times what an answer took goes by before the next. */
const REST = 20;
const ASK_MAX_MS = 60_000;
const AGAIN_S = 5;
/** One who may not see it may not so soon. */
const REFUSED_AGAIN_S = 60;

/** @param {string} tag @param {string} kind @param {...(Node | string)} parts */
export function make(tag, kind, ...parts) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...parts);
  return element;
}

/** What somebody else has named: it moves nothing around it. @param {string} text */
export const name = (text) => make('bdi', '', String(text));

/** A link to the first page, found again after the box is drawn anew. @param {string} href @param {...(Node | string)} parts */
export function link(href, ...parts) {
  const element = /** @type {HTMLAnchorElement} */ (make('a', '', ...parts));
  element.href = href;
  return element;
}

/** What a box says where it has no answer. @param {import('./ask.js').Failure} fail */
export const why = (fail) => `${told(fail)} ${W.retry(again(fail))}`;

/** Whatever was thrown, as a failure. @param {any} thrown @returns {import('./ask.js').Failure} */
export const failureOf = (thrown) => (typeof thrown?.status === 'number' ? thrown : { status: -2, words: `${O.noSense}: ${thrown}`, retry: 0 });

/** In how many seconds it is tried again. @param {import('./ask.js').Failure} fail */
export const again = ({ retry, status }) => retry || (status === 401 || status === 403 ? REFUSED_AGAIN_S : AGAIN_S);

/** @param {HTMLElement} box @param {string} title */
export function head(box, title) {
  const words = make('h2', '', title);
  words.id = `${box.id}-title`;
  box.setAttribute('aria-labelledby', words.id);
  const header = make('header', '', words);
  const note = make('p', 'why bad');
  note.hidden = true;
  const body = make('div', 'body');
  box.replaceChildren(header, note, body);
  return { header, note, body };
}

/**
 * @typedef {{path: string, title: string, every: number, also?: number, draw: (answer: any) => (Node | string)[],
 *   onState: (card: Card, fail: import('./ask.js').Failure | null) => void}} What `every`: milliseconds.
 */

export class Card {
  /** @param {HTMLElement} box @param {What} what */
  constructor(box, what) {
    this.box = box;
    this.what = what;
    const { note, body } = head(box, what.title);
    this.note = note;
    this.body = body;
    body.append(make('p', 'quiet', W.searching));
    /** @type {AbortController | null} */
    this.asking = null;
    this.timer = 0;
    this.shown = '';
  }

  /** Asks at once, unless it is asking. */
  async ask() {
    if (this.asking) return;
    clearTimeout(this.timer);
    const own = this.asking = new AbortController();
    const { path, every, also, draw, onState } = this.what;
    const before = performance.now();
    let rest = every;
    try {
      const answer = await object(path, AbortSignal.any([own.signal, AbortSignal.timeout(ASK_MAX_MS)]), also);
      if (own.signal.aborted) return;
      this.show(answer, draw);
      this.note.hidden = true;
      this.box.classList.remove('old');
      rest = Math.max(every, REST * (performance.now() - before));
      onState(this, null);
    } catch (thrown) {
      if (own.signal.aborted) return;
      const { status } = /** @type {import('./refusal.js').Failure} */ (thrown);
      const fail = failureOf(status === -1 ? { .../** @type {any} */ (thrown), status: 0 } : thrown);
      this.note.textContent = why(fail);
      this.note.hidden = false;
      // What was there stays, as what it is.
      if (this.shown) this.box.classList.add('old'); else this.body.replaceChildren();
      rest = again(fail) * 1000;
      onState(this, fail);
    }
    this.asking = null;
    this.timer = setTimeout(() => this.ask(), rest);
  }

  stop() {
    clearTimeout(this.timer);
    this.asking?.abort();
    this.asking = null;
  }

  /** Draws what has changed; the focus stays where it was, and what is being selected stays. @param {any} answer @param {(answer: any) => (Node | string)[]} draw */
  show(answer, draw) {
    const text = JSON.stringify(answer);
    const selection = getSelection();
    const isSelected = Boolean(selection && !selection.isCollapsed && this.body.contains(selection.anchorNode));
    if (this.shown && (text === this.shown || isSelected)) return;
    const parts = draw(answer);
    const focused = document.activeElement;
    const href = focused instanceof HTMLAnchorElement && this.body.contains(focused) ? focused.href : '';
    const scrolled = this.body.querySelector('.tally')?.scrollTop ?? 0;
    this.body.replaceChildren(...parts);
    this.shown = text;
    const list = this.body.querySelector('.tally');
    if (list) list.scrollTop = scrolled;
    if (href) [...this.body.querySelectorAll('a')].find((one) => one.href === href)?.focus({ preventScroll: true });
  }
}
