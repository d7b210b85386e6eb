// What one run of a query brings: rows page by page, in either direction from where it began.
//
// Pages go on behind the last ULID, in the range as the first one had it: so none is lost or shown twice, and
// none is of another time, while the clock goes on. What failed is read on from where it stands.

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
    this.isWhole = true;
    /** Ends at which reading failed, and how much was asked for. @type {Map<'before' | 'after', number | undefined>} */
    this.broken = new Map();
    this.scanned = 0;
    this.skipped = 0;
    this.started = performance.now();
    this.took = 0;
    this.isStopped = false;
    if (state.live) this.load('before', PAGE);
    // What stands before the row that is looked for says what the range is; the rest follows.
    else if (state.at) { this.more.before = true; this.load('before', AROUND); return; }
    this.load('after', PAGE);
  }

  get isComplete() { return this.isWhole && !this.broken.size; }

  get isReading() { return Boolean(this.reading.before || this.reading.after); }

  /** Reads on at an end, `limit` rows or all there are. @param {'before' | 'after'} end @param {number} [limit] */
  load(end, limit) {
    if (this.reading[end] || !this.more[end] || this.isStopped) return;
    const { store, state } = this;
    const query = asked(state);
    const isBefore = end === 'before';
    if (this.from) query.set('from', this.from);
    if (this.to && state.to) query.set('to', this.to);
    query.set('order', isBefore === this.descending ? 'asc' : 'desc');
    if (limit) query.set('limit', String(limit));
    if (store.length) query.set('after', store.ulid(isBefore ? store.first : store.end - 1));
    else if (state.at && isBefore) query.set('after', state.at);
    else if (state.at) query.set(this.descending ? 'to' : 'from', state.at);
    let got = 0;
    this.reading[end] = records(query, {
      onHead: (head) => {
        if (!this.from) [this.from, this.to] = [head['x-oklog-from'] ?? '', head['x-oklog-to'] ?? ''];
        if (state.at && isBefore && !store.length) this.load('after', AROUND);
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
        if (!told.complete) this.isWhole = false;
        for (const gap of told.missing ?? []) {
          const known = this.missing.some((one) => one.from === gap.from && one.to === gap.to && one.reason === gap.reason);
          if (!known) this.missing.push(gap);
        }
        this.tell.changed();
      },
      onFail: (fail) => {
        this.over(end);
        this.more[end] = false;
        this.broken.set(end, limit);
        this.tell.failed(fail);
        this.tell.changed();
      },
    });
  }

  /** Reads on where it failed. */
  again() {
    const all = [...this.broken];
    this.broken.clear();
    for (const [end, limit] of all) {
      this.more[end] = true;
      this.load(end, limit);
    }
    this.tell.changed();
  }

  /** @param {'before' | 'after'} end */
  over(end) {
    this.reading[end] = null;
    if (!this.isReading) this.took = performance.now() - this.started;
  }

  /** The next page, larger each time. */
  next() {
    if (this.reading.after || !this.more.after || this.broken.size || !this.store.length) return;
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
