// The live tail: what is kept already comes first, then what comes, behind it, as it comes.
//
// Rows are put behind the others, and the window stays where it is unless it follows: so nothing moves
// while one reads. What one reads is not let go of either: if there is no more room then, what comes is left
// to the node.

import { follow } from './ask.js';
import { asked } from './state.js';
import { ulidOf, boundMs } from './time.js';

/** How many rows are kept, and how many while one reads. */
const KEPT = 100_000;
const KEPT_PAUSED = 200_000;
const RATE_MS = 5000;
/** Nobody reads more pictures a second of what comes faster than a window full in each. */
const PICTURE_MS = 100;

export class Live {
  /** @param {import('./results.js').Results} results @param {import('./rows.js').Rows} rows @param {{changed: () => void, failed: (fail: import('./ask.js').Failure) => void, anew: () => void}} tell */
  constructor(results, rows, tell) {
    this.results = results;
    this.rows = rows;
    this.tell = tell;
    this.isOn = false;
    /** @type {import('./ask.js').Failure | undefined} */
    this.why = undefined;
    this.isStarted = false;
    /** By the reader, or with its run. */
    this.isEnded = false;
    this.unseen = 0;
    this.dropped = 0;
    this.missed = 0;
    /** How many spans of what was made up for could not be searched. */
    this.gaps = 0;
    /** Why the node has ended it, in its words. */
    this.reason = '';
    /** No more is taken before the reader goes on. */
    this.isFull = false;
    /** @type {[number, number][]} */
    this.came = [];
    this.isDue = false;
    this.drawnMs = 0;
    this.end = () => {};
    rows.follows = true;
  }

  /** What is kept has come: goes on behind it. */
  start() {
    this.isStarted = true;
    const { store, from } = this.results;
    const query = asked(this.results.state);
    query.delete('from');
    query.delete('to');
    const after = store.length ? store.ulid(store.end - 1) : ulidOf(boundMs(from) || Date.now());
    this.end = follow(query, after, {
      onState: (isOn, why) => {
        [this.isOn, this.why] = [isOn, why];
        if (isOn) this.reason = '';
        this.tell.changed();
      },
      onRows: (bytes, ends) => this.take(bytes, ends),
      onNote: (name, data) => this.note(name, data),
      onFail: (fail) => { this.isOn = false; this.tell.failed(fail); },
    });
  }

  /** @param {string} name @param {Record<string, any>} data */
  note(name, data) {
    if (name === 'missed') this.missed += Number(data.records) || 0;
    else if (name === 'end') this.reason = String(data.reason ?? '');
    else {
      this.gaps += Number(data.missing_count) || 1;
      this.results.isWhole = false;
    }
    this.tell.changed();
  }

  /** @param {Uint8Array} bytes @param {Uint32Array} ends */
  take(bytes, ends) {
    const { store } = this.results;
    store.append(bytes, ends);
    this.came.push([performance.now(), ends.length]);
    if (!this.rows.follows) this.unseen += ends.length;
    const dropped = this.rows.follows ? store.drop(KEPT) : store.drop(KEPT_PAUSED, this.rows.top);
    if (dropped) { this.dropped += dropped; this.results.more.before = false; }
    if (!this.rows.follows && store.length > KEPT_PAUSED) { this.isFull = true; this.end(); }
    this.picture();
  }

  /** Shows what has come: at once, unless it was shown a moment ago. */
  picture() {
    if (this.isDue) return;
    this.isDue = true;
    const wait = Math.max(0, this.drawnMs + PICTURE_MS - performance.now());
    setTimeout(() => {
      this.isDue = false;
      this.drawnMs = performance.now();
      this.rows.draw();
      this.tell.changed();
    }, wait);
  }

  /** Rows a second, lately. */
  get rate() {
    const now = performance.now();
    while (this.came.length && now - this.came[0][0] > RATE_MS) this.came.shift();
    return Math.round(this.came.reduce((sum, [, n]) => sum + n, 0) / RATE_MS * 1000);
  }

  get isPaused() { return !this.rows.follows; }

  pause() { this.rows.follows = false; this.tell.changed(); }

  resume() {
    if (this.isFull) { this.tell.anew(); return; }
    this.unseen = 0;
    this.rows.follows = true;
    this.rows.draw();
    this.tell.changed();
  }
}
