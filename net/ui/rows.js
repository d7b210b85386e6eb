// The list of records: as many elements as fit the window, however many records there are.
//
// The place is (row, pixels of it above the window), so that rows may differ in height and their number
// is not bounded by the height that a browser gives an element.

import { fields, PARSED_MAX } from './fields.js';
import { fillRow, runs, GLYPHS } from './text.js';
import { ago, full } from './time.js';
import { W } from './words.js';

export const ROW = 20;
const DAY = 20 * 3600e3;
/** So long the next match is looked for, milliseconds. */
const SEEK_MS = 1000;

/** What a cell of a column shows, characters. */
const CELL = 200;
const COLOURS = 10;
/** @type {Map<string, number>} */
const colours = new Map();

/** A colour of its own for each of the first topics, the same one each time unless others have it. @param {string} topic */
export function colour(topic) {
  let own = colours.get(topic);
  if (own === undefined) {
    own = 0;
    for (const c of topic) own = (own * 31 + c.charCodeAt(0)) % 65521;
    const taken = new Set(colours.values());
    own %= COLOURS;
    if (taken.size < COLOURS) while (taken.has(own)) own = (own + 1) % COLOURS;
    colours.set(topic, own);
  }
  return `c${own}`;
}

export class Rows {
  /** @param {{rows: HTMLElement, heads: HTMLElement, pane: HTMLElement, track: HTMLElement, thumb: HTMLElement}} parts */
  constructor(parts) {
    this.rows = parts.rows; this.heads = parts.heads; this.pane = parts.pane; this.track = parts.track; this.thumb = parts.thumb;
    /** @type {import('./store.js').Store | null} */
    this.store = null;
    this.top = 0;
    this.above = 0;
    this.selected = NaN;
    this.zone = '';
    this.follows = false;
    /** @type {(text: string) => number[]} */
    this.matches = () => [];
    /** @type {Map<number, HTMLElement>} */
    this.shown = new Map();
    /** @type {HTMLElement[]} */
    this.free = [];
    this.waiting = 0;
    /** What stands before and behind a row as parts of it. @type {{index: number, parts: HTMLElement[]} | null} */
    this.around = null;
    /** Names of fields that have a cell of their own. @type {string[]} */
    this.columns = [];
    /** @type {(name: string) => void} */
    this.onColumn = () => {};
    this.onMoved = () => {};
    this.onPaused = () => {};
    this.onNearEnd = () => {};
    /** @type {(index: number) => void} */
    this.onPick = () => {};
    /** @type {(topic: string, out: boolean) => void} */
    this.onTopic = () => {};
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.rows);
  }

  /** Shows another store from its beginning. @param {import('./store.js').Store} store */
  show(store) {
    this.store = store;
    this.top = store.first;
    this.above = 0;
    this.selected = NaN;
    this.around = null;
    this.redraw();
  }

  /** So much of the window is the rows'. */
  get height() { return this.rows.clientHeight - this.heads.offsetHeight; }

  /** @param {string[]} columns */
  showColumns(columns) {
    this.columns = columns;
    this.rows.classList.toggle('columns', columns.length > 0);
    this.redraw();
  }

  /** Everything anew: what the rows look like has changed. */
  redraw() {
    for (const element of this.shown.values()) { element.remove(); this.free.push(element); }
    this.shown.clear();
    for (const element of this.free) for (const part of element.querySelectorAll('.inset')) part.remove();
    if (this.free[0]?.children.length !== 4 + this.columns.length) this.free = [];
    this.drawHeads();
    this.draw();
  }

  /** Where the line of a row stands in the window. @param {number} index */
  lineAt(index) { return this.shown.get(index)?.querySelector('.time')?.getBoundingClientRect().top; }

  /** Shows parts of a row before and behind it, or none any longer: the row itself stays where it is, but for the first time, if they do not fit there. @param {{index: number, parts: HTMLElement[]} | null} around */
  inset(around) {
    const index = around?.index ?? this.around?.index ?? NaN;
    const isNew = this.around?.index !== index;
    this.stay();
    const before = this.lineAt(index);
    this.around = around;
    this.redraw();
    this.paint();
    this.above += (this.lineAt(index) ?? 0) - (before ?? this.lineAt(index) ?? 0);
    if (isNew && around) {
      this.paint();
      const { top, bottom } = this.rows.getBoundingClientRect();
      const [first, last] = [around.parts[0], around.parts[around.parts.length - 1]].map((part) => part.getBoundingClientRect());
      if (first.top < top || last.bottom > bottom) this.above += (this.lineAt(index) ?? 0) - (top + bottom) / 2;
    }
    this.draw();
  }

  /** Draws with the next frame. */
  draw() {
    this.waiting ||= requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }

  paint() {
    const store = this.store;
    if (!store) return;
    const height = this.height;
    if (this.top < store.first) { this.top = store.first; this.above = 0; }
    if (this.follows) this.top = store.end - Math.ceil(height / ROW);
    this.top = Math.max(store.first, Math.min(this.top, store.end - 1));
    this.place(height);
    if (this.follows) {
      // As many as may fit, and what is too much of them above the window.
      this.above = -height;
      for (let index = this.top; index < store.end; index++) this.above += this.heightOf(index);
      this.above = Math.max(0, this.above);
    }
    // Heights are read of many rows at a time: each element that is written in between is laid out anew.
    while (this.above < 0 && this.top > store.first) {
      const up = Math.min(this.top - store.first, Math.ceil(-this.above / ROW), Math.ceil(height / ROW) + 2);
      this.top -= up;
      this.place(height);
      for (let index = this.top; index < this.top + up; index++) this.above += this.heightOf(index);
    }
    this.above = Math.max(0, this.above);
    while (this.top < store.end - 1) {
      if (!this.shown.has(this.top)) this.place(height);
      const tall = this.heightOf(this.top);
      if (this.above < tall) break;
      this.above -= tall;
      this.top++;
    }
    this.place(height);
    this.keepFull(height);
    this.pane.style.transform = `translateY(${-this.above}px)`;
    this.drawThumb(height);
    this.rows.setAttribute('aria-rowcount', String(store.length));
    if (this.shown.has(this.selected)) this.rows.setAttribute('aria-activedescendant', `row${this.selected}`);
    else this.rows.removeAttribute('aria-activedescendant');
    if (store.end - this.top < 3 * height / ROW) this.onNearEnd();
    this.onMoved();
  }

  /** No empty window below the last row while there are rows above. @param {number} height */
  keepFull(height) {
    const store = /** @type {import('./store.js').Store} */ (this.store);
    while (this.shown.has(store.end - 1)) {
      let below = -this.above;
      for (const index of this.shown.keys()) below += this.heightOf(index);
      const gap = height - below;
      if (gap <= 0) return;
      if (this.above >= gap) { this.above -= gap; return; }
      if (this.top <= store.first) { this.above = 0; return; }
      const up = Math.max(1, Math.min(this.top - store.first, Math.floor((gap - this.above) / ROW / 3)));
      this.top -= up;
      this.place(height);
      for (let index = this.top; index < this.top + up; index++) this.above += this.heightOf(index);
    }
  }

  /** @param {number} index */
  heightOf(index) { return this.shown.get(index)?.offsetHeight || ROW; }

  /** One element for each row from the top one on, as they are if they are there. @param {number} height */
  place(height) {
    const store = /** @type {import('./store.js').Store} */ (this.store);
    const end = Math.min(store.end, this.top + Math.ceil(height / ROW) + 2);
    for (const [index, element] of this.shown) {
      if (index < this.top || index >= end) { this.shown.delete(index); this.free.push(element); }
    }
    /** @type {Map<number, HTMLElement>} */
    const shown = new Map();
    let before = this.pane.firstChild;
    for (let index = this.top; index < end; index++) {
      let element = this.shown.get(index);
      if (!element) { element = this.free.pop() ?? this.element(); this.write(element, index); }
      if (element === before) before = before.nextSibling;
      else this.pane.insertBefore(element, before);
      shown.set(index, element);
    }
    this.shown = shown;
    for (const element of this.free) element.remove();
    this.free.length = Math.min(this.free.length, 64);
  }

  element() {
    const row = document.createElement('div');
    row.className = 'row';
    row.setAttribute('role', 'row');
    for (const kind of ['time', 'level', 'topic', ...this.columns.map(() => 'col'), 'text']) {
      const cell = document.createElement('span');
      cell.className = kind;
      cell.setAttribute('role', 'gridcell');
      row.appendChild(cell);
    }
    return row;
  }

  /** @param {HTMLElement} element @param {number} index */
  write(element, index) {
    const store = /** @type {import('./store.js').Store} */ (this.store);
    const row = store.row(index);
    for (const part of element.querySelectorAll('.inset')) part.remove();
    const cells = /** @type {HTMLElement[]} */ ([...element.children]);
    const [time, level, topic] = cells;
    const text = cells[cells.length - 1];
    element.id = `row${index}`;
    element.dataset.index = String(index);
    element.className = `row ${row.level}`;
    element.classList.toggle('chosen', index === this.selected);
    element.setAttribute('aria-rowindex', String(index - store.first + 1));
    element.setAttribute('aria-selected', String(index === this.selected));
    const whole = full(row.ms, this.zone);
    time.textContent = this.spansDays() ? whole.slice(5) : whole.slice(11);
    time.title = `${whole} · ${row.ulid}`;
    level.textContent = GLYPHS[/** @type {keyof typeof GLYPHS} */ (row.level)];
    level.title = row.level;
    topic.textContent = row.topic;
    topic.className = `topic ${colour(row.topic)}`;
    if (this.columns.length) {
      row.fields ??= new Map(fields(store.text(index, PARSED_MAX)).map(([name, value]) => [name, value]));
      for (const [k, name] of this.columns.entries()) {
        const value = row.fields.get(name) ?? '';
        fillRow(cells[3 + k], value.slice(0, CELL), Math.max(0, value.length - CELL), () => []);
        cells[3 + k].title = value.slice(0, 1000);
      }
    }
    element.classList.toggle('hit', fillRow(text, row.text, row.hidden, this.matches));
    const parts = this.around?.index === index ? this.around.parts : [];
    element.classList.toggle('amid', parts.length > 0);
    if (parts.length) { element.prepend(parts[0]); element.append(...parts.slice(1)); }
  }

  /** Names of the columns, above the rows if there are any. */
  drawHeads() {
    this.heads.hidden = !this.columns.length;
    if (!this.columns.length) { this.heads.replaceChildren(); return; }
    const head = (/** @type {string} */ kind, /** @type {string} */ words) => {
      const cell = document.createElement('span');
      cell.className = kind;
      cell.setAttribute('role', 'columnheader');
      cell.textContent = words;
      return cell;
    };
    const row = document.createElement('div');
    row.className = 'row';
    row.setAttribute('role', 'row');
    const own = this.columns.map((name) => {
      const cell = head('col', '');
      const go = document.createElement('button');
      go.type = 'button';
      go.textContent = `${name} ×`;
      go.title = W.columnGo;
      go.setAttribute('aria-label', `${W.columnGo}: ${name}`);
      go.onclick = () => this.onColumn(name);
      cell.append(go);
      return cell;
    });
    row.append(head('time', W.heads.time.padEnd(this.spansDays() ? 18 : 12)), head('level', W.heads.level), head('topic', W.heads.topic), ...own, head('text', W.heads.text));
    this.heads.replaceChildren(row);
  }

  /** Whether times need their dates: told by the ends of what is loaded. */
  spansDays() {
    const store = this.store;
    if (!store || store.length < 2) return Date.now() - (store?.length ? store.row(store.first).ms : 0) > DAY;
    const [first, last] = [store.row(store.first).ms, store.row(store.end - 1).ms];
    return Math.abs(first - last) > DAY || Date.now() - Math.min(first, last) > DAY;
  }

  /** @param {number} height */
  drawThumb(height) {
    const store = /** @type {import('./store.js').Store} */ (this.store);
    const fits = height / ROW;
    this.track.hidden = store.length <= fits;
    const size = Math.max(24, height * Math.min(1, fits / Math.max(1, store.length)));
    const most = Math.max(1, store.length - fits);
    const at = Math.min(1, (this.top - store.first + this.above / ROW) / most);
    this.thumb.style.height = `${size}px`;
    this.thumb.style.transform = `translateY(${at * (height - size)}px)`;
  }

  /** @param {number} pixels */
  scroll(pixels) {
    if (pixels < 0) this.stay();
    this.above += pixels;
    // The top row, with records around it, may be as high as many.
    const beyond = this.above > 0 ? Math.max(0, this.above - this.heightOf(this.top)) : this.above;
    if (Math.abs(beyond) > 100 * ROW) {
      const rows = Math.trunc(beyond / ROW);
      this.top += rows + (beyond > 0 ? 1 : 0);
      this.above = beyond - rows * ROW;
    }
    this.draw();
  }

  /** Follows no longer. */
  stay() {
    if (!this.follows) return;
    this.follows = false;
    this.onPaused();
  }

  /** @param {number} ratio */
  jump(ratio) {
    const store = this.store;
    if (!store) return;
    const at = ratio * Math.max(0, store.length - this.height / ROW);
    this.stay();
    this.top = store.first + Math.floor(at);
    this.above = (at % 1) * ROW;
    this.draw();
  }

  /** Chooses a row and brings it into the window. @param {number} index */
  select(index) {
    const store = this.store;
    if (!store || !store.length) return;
    index = Math.max(store.first, Math.min(index, store.end - 1));
    this.stay();
    const before = this.selected;
    this.selected = index;
    for (const one of [before, index]) {
      const element = this.shown.get(one);
      element?.classList.toggle('chosen', one === index);
      element?.setAttribute('aria-selected', String(one === index));
    }
    if (this.shown.has(index)) this.rows.setAttribute('aria-activedescendant', `row${index}`);
    this.reveal(index);
  }

  /** Chooses a row and shows those above it, too. @param {number} index */
  centre(index) {
    this.follows = false;
    this.selected = index;
    this.top = index;
    this.above = -this.height / 3;
    this.redraw();
  }

  /** @param {number} index */
  reveal(index) {
    const element = this.shown.get(index);
    const { bottom, top: above } = this.rows.getBoundingClientRect();
    const window = { top: above + this.heads.offsetHeight, bottom, height: this.height };
    const own = element?.getBoundingClientRect();
    if (!own) {
      this.follows = false;
      const isBelow = index > this.top;
      const near = Math.abs(index - this.top) < 3 * window.height / ROW;
      this.top = index;
      this.above = near ? (isBelow ? -(window.height - 2 * ROW) : 0) : -window.height / 3;
      this.draw();
    } else if (own.top < window.top) this.scroll(own.top - window.top);
    else if (own.bottom > window.bottom) this.scroll(Math.min(own.bottom - window.bottom, own.top - window.top));
  }

  /** Next row behind the chosen one that has a mark. @param {number} step */
  match(step) {
    const store = this.store;
    if (!store) return;
    const until = performance.now() + SEEK_MS;
    const start = Number.isNaN(this.selected) ? (step > 0 ? this.top - 1 : this.top) : this.selected;
    for (let index = start + step, tries = 0; index >= store.first && index < store.end && tries < 50_000; index += step, tries++) {
      if (performance.now() > until) return;
      const plain = runs(store.row(index).text).all.map((run) => run.text).join('');
      if (this.matches(plain).length) { this.select(index); return; }
    }
  }

  listen() {
    const { rows, track } = this;
    rows.addEventListener('wheel', (event) => {
      if (event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 2 * ROW : event.deltaMode === 2 ? this.height : 1;
      this.scroll(event.deltaY * unit);
    }, { passive: false });
    let touched = 0;
    rows.addEventListener('touchstart', (event) => { touched = event.touches[0].clientY; }, { passive: true });
    rows.addEventListener('touchmove', (event) => {
      event.preventDefault();
      const y = event.touches[0].clientY;
      this.scroll(touched - y);
      touched = y;
    }, { passive: false });
    // Selecting text beyond the edges would scroll what the transform moves.
    rows.addEventListener('scroll', () => { rows.scrollTop = 0; });
    rows.addEventListener('pointerover', (event) => {
      const cell = /** @type {HTMLElement} */ (event.target);
      const index = Number(/** @type {HTMLElement | null} */ (cell.closest('#pane > .row'))?.dataset.index ?? NaN);
      if (!cell.classList.contains('time') || !this.store || !(index >= this.store.first)) return;
      const { ms, ulid } = this.store.row(index);
      cell.title = `${ago(ms, Date.now())} · ${full(ms, this.zone)} · ${ulid}`;
    });
    rows.addEventListener('click', (event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      const row = /** @type {HTMLElement | null} */ (target.closest('#pane > .row'));
      if (!row || !getSelection()?.isCollapsed || target.closest('.inset')) return;
      const index = Number(row.dataset.index);
      if (target.classList.contains('topic')) this.onTopic(target.textContent ?? '', event.altKey);
      else this.onPick(index);
    });
    const drag = (/** @type {PointerEvent} */ event) => {
      const box = track.getBoundingClientRect();
      const size = this.thumb.offsetHeight;
      this.jump(Math.max(0, Math.min(1, (event.clientY - box.top - size / 2) / Math.max(1, box.height - size))));
    };
    track.addEventListener('pointerdown', (event) => { track.setPointerCapture(event.pointerId); drag(event); });
    track.addEventListener('pointermove', (event) => { if (track.hasPointerCapture(event.pointerId)) drag(event); });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const page = this.height - 2 * ROW;
    const store = this.store;
    if (!store) return false;
    const at = !Number.isNaN(this.selected) ? this.selected : this.follows ? store.end : this.top - 1;
    /** @type {Record<string, () => void>} */
    const keys = {
      j: () => this.select(at + 1), ArrowDown: () => this.select(at + 1),
      k: () => this.select(at - 1), ArrowUp: () => this.select(at - 1),
      g: () => this.select(store.first), Home: () => this.select(store.first),
      G: () => this.select(store.end - 1), End: () => this.select(store.end - 1),
      PageDown: () => this.scroll(page), PageUp: () => this.scroll(-page),
      n: () => this.match(1), N: () => this.match(-1),
    };
    const act = keys[event.key];
    act?.();
    return Boolean(act);
  }
}
