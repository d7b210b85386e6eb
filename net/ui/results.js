// What one run of a query brings: rows page by page, in either direction from where it began.
//
// Pages go on behind the last ULID with the first page's start of the range, so that none is lost or
// shown twice while the clock goes on.

import { records } from './ask.js';
import { Store } from './store.js';
import { asked } from './state.js';

const PAGE = 1000;
const PAGE_MAX = 64_000;
const AROUND = 500;

export class Results {
  /** @param {import('./state.js').State} state @param {{changed: () => void, failed: (fail: import('./ask.js').Failure) => void}} tell */
  constructor(state, tell) {
    this.state = state;
    this.tell = tell;
    this.store = new Store();
    // The live tail grows downwards: what is kept stands above what comes.
    this.descending = state.order === 'desc' && !state.live;
    this.more = { before: state.live, after: !state.live };
    /** @type {{before: null | (() => void), after: null | (() => void)}} */
    this.reading = { before: null, after: null };
    this.page = PAGE;
    this.from = '';
    this.to = '';
    /** @type {any[]} */
    this.missing = [];
    this.isComplete = true;
    this.scanned = 0;
    this.skipped = 0;
    this.started = performance.now();
    this.took = 0;
    this.isStopped = false;
    if (state.live) this.load('before', PAGE);
    else if (state.at) { this.more.before = true; this.load('before', AROUND); }
    this.load('after', state.at ? AROUND : PAGE);
  }

  get isReading() { return Boolean(this.reading.before || this.reading.after); }

  /** Reads on at an end, `limit` rows or all there are. @param {'before' | 'after'} end @param {number} [limit] */
  load(end, limit) {
    if (this.reading[end] || !this.more[end] || this.isStopped) return;
    const { store, state } = this;
    const query = asked(state);
    const isBefore = end === 'before';
    if (this.from) query.set('from', this.from);
    query.set('order', isBefore === this.descending ? 'asc' : 'desc');
    if (limit) query.set('limit', String(limit));
    if (store.length) query.set('after', store.ulid(isBefore ? store.first : store.end - 1));
    else if (state.at && isBefore) query.set('after', state.at);
    else if (state.at) query.set(this.descending ? 'to' : 'from', state.at);
    let got = 0;
    this.reading[end] = records(query, {
      onHead: (head) => {
        if (state.at && !isBefore || this.from) return;
        [this.from, this.to] = [head['x-oklog-from'] ?? '', head['x-oklog-to'] ?? ''];
      },
      onRows: (bytes, ends) => {
        if (!ends.length) return;
        got += ends.length;
        if (isBefore) store.prepend(bytes, ends); else store.append(bytes, ends);
        this.tell.changed();
      },
      onEnd: (told) => {
        this.over(end);
        this.more[end] = limit !== undefined && got >= limit;
        this.scanned += told.bytes_scanned ?? 0;
        this.skipped += told.blocks_skipped ?? 0;
        if (!told.complete) this.isComplete = false;
        for (const gap of told.missing ?? []) {
          const known = this.missing.some((one) => one.from === gap.from && one.to === gap.to && one.reason === gap.reason);
          if (!known) this.missing.push(gap);
        }
        this.tell.changed();
      },
      onFail: (fail) => {
        this.over(end);
        this.more[end] = false;
        this.isComplete = false;
        this.tell.failed(fail); this.tell.changed(); },
    });
  }

  /** @param {'before' | 'after'} end */
  over(end) {
    this.reading[end] = null;
    if (!this.isReading) this.took = performance.now() - this.started;
  }

  /** The next page, larger each time. */
  next() {
    if (this.reading.after || !this.more.after) return;
    this.page = Math.min(PAGE_MAX, this.page * 4);
    this.load('after', this.page);
  }

  all() {
    this.stopReading();
    this.isStopped = false;
    this.load('before');
    this.load('after');
  }

  stopReading() {
    for (const end of /** @type {const} */ (['before', 'after'])) {
      this.reading[end]?.();
      this.over(end);
    }
  }

  stop() {
    if (this.isReading) this.isStopped = true;
    this.stopReading();
  }
}
