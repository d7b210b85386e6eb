// The histogram: counts by time, stacked by topic or level; a span of it is chosen by pointer or keys.

import { colour } from './rows.js';
import { GLYPHS } from './text.js';
import { boundMs, full, iso } from './time.js';
import { W, count, number, span } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';
const HEIGHT = 72;
const AXIS = 16;

/** @param {string} name @param {Record<string, string | number>} given */
function svg(name, given) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(given)) element.setAttribute(key, String(value));
  return element;
}

/** So many series are named below the bars, and so many have a column in the table. */
const NAMED = 12;
const COLUMNS = 6;

/** What counts are of: its name, its colour's class, its sign. @param {{topic?: string | null, level?: string | null}} one */
function called({ topic, level }) {
  if (level !== undefined) {
    return { name: level ?? W.noLevel, kind: `lv-${level ?? 'none'}`, mark: GLYPHS[/** @type {keyof typeof GLYPHS} */ (level ?? '')].trim() };
  }
  return topic ? { name: topic, kind: colour(topic), mark: '' } : { name: W.rest, kind: 'c-rest', mark: '' };
}

/** How many buckets a width has room for. @param {number} width */
export const bucketsFor = (width) => Math.max(24, Math.min(240, Math.floor(width / 7)));

export class Histogram {
  /** @param {HTMLElement} box @param {(from: string, to: string) => void} onZoom */
  constructor(box, onZoom) {
    this.box = box;
    this.onZoom = onZoom;
    /** @type {any} */
    this.data = null;
    this.zone = '';
    /** @type {HTMLElement[]} */
    this.names = [];
    this.cursor = -1;
    this.anchor = -1;
    box.tabIndex = 0;
    box.setAttribute('role', 'group');
    box.setAttribute('aria-label', W.chartHelp);
    box.addEventListener('pointerdown', (event) => this.press(event));
    box.addEventListener('pointermove', (event) => this.move(event));
    box.addEventListener('pointerup', (event) => this.release(event));
    box.addEventListener('pointerleave', () => { if (this.anchor < 0) this.tell(''); });
    box.addEventListener('keydown', (event) => this.key(event));
    let width = 0;
    new ResizeObserver(() => { if (box.clientWidth !== width) { width = box.clientWidth; this.draw(); } }).observe(box);
  }

  /** @param {any} data */
  show(data) { this.data = data; this.cursor = this.anchor = -1; this.draw(); }

  /** @param {string} words */
  fail(words) {
    this.data = null;
    this.names = [];
    const note = document.createElement('p');
    note.className = 'chart-fail';
    note.textContent = words;
    this.box.replaceChildren(note);
  }

  get start() { return Date.parse(this.data.from); }
  /** @param {number} index */
  edge(index) { return this.start + index * this.data.interval_ms; }
  /** @param {number} ms */
  at(ms) { return (ms - this.start) / this.data.interval_ms / this.data.counts.length * this.box.clientWidth; }

  draw() {
    const { data, box } = this;
    if (!data) return;
    const width = box.clientWidth;
    const n = data.counts.length;
    const most = Math.max(1, ...data.counts);
    const step = width / n;
    const image = svg('svg', { width, height: HEIGHT + AXIS, 'aria-hidden': 'true' });
    for (const gap of data.missing ?? []) {
      const [from, to] = [Math.max(0, this.at(boundMs(gap.from))), Math.min(width, this.at(boundMs(gap.to)))];
      if (to >= from) image.append(svg('rect', { class: 'gap', x: from, y: 0, width: Math.max(3, to - from), height: HEIGHT }));
    }
    const base = new Float64Array(n);
    for (const one of data.series ?? [data]) {
      const { counts } = one;
      let path = '';
      counts.forEach((/** @type {number} */ value, /** @type {number} */ k) => {
        if (!value) return;
        const tall = Math.max(1, value / most * (HEIGHT - 4));
        const x = k * step;
        path += `M${x.toFixed(1)} ${(HEIGHT - base[k]).toFixed(1)}v${-tall.toFixed(1)}h${Math.max(1, step - 1).toFixed(1)}v${tall.toFixed(1)}z`;
        base[k] += tall;
      });
      image.append(svg('path', { d: path, class: `bars ${called(one).kind}` }));
    }
    image.append(svg('line', { class: 'axis', x1: 0, x2: width, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 }));
    this.ticks(image, width);
    const top = svg('text', { x: 2, y: 10, class: 'tick' });
    top.textContent = number(most);
    image.append(top);
    this.brush = svg('rect', { class: 'brush', x: 0, y: 0, width: 0, height: HEIGHT });
    image.append(this.brush);
    const foot = document.createElement('div');
    foot.className = 'legend';
    this.names = (data.series ?? []).slice(0, NAMED).map(() => foot.appendChild(document.createElement('span')));
    this.told = document.createElement('span');
    this.told.className = 'told';
    this.told.setAttribute('role', 'status');
    foot.append(this.told);
    box.replaceChildren(image, foot, this.table());
    this.tell('');
  }

  /** @param {Element} image @param {number} width */
  ticks(image, width) {
    const whole = this.data.interval_ms * this.data.counts.length;
    const steps = [1, 5, 10, 50, 100, 500, 1e3, 5e3, 10e3, 30e3, 60e3, 300e3, 600e3, 1800e3, 3600e3, 7200e3, 21600e3, 43200e3, 86400e3, 604800e3, 2592e6, 31536e6];
    const step = steps.find((one) => whole / one * 90 <= width) ?? steps[steps.length - 1];
    for (let ms = Math.ceil(this.start / step) * step; ms < this.start + whole; ms += step) {
      const x = this.at(ms);
      if (x < 30 || x > width - 40) continue;
      const text = full(ms, this.zone);
      const tick = svg('text', { x, y: HEIGHT + 12, class: 'tick', 'text-anchor': 'middle' });
      tick.textContent = step >= 86400e3 ? text.slice(0, 10) : whole > 86400e3 ? text.slice(5, 16) : step < 1000 ? text.slice(11) : text.slice(11, 19);
      image.append(tick, svg('line', { class: 'axis', x1: x, x2: x, y1: HEIGHT, y2: HEIGHT + 3 }));
    }
  }

  /** For those who do not see it. A table is as high as its rows are, whatever it is told: its box is not. */
  table() {
    const box = document.createElement('div');
    box.className = 'unseen';
    const table = document.createElement('table');
    box.append(table);
    table.createCaption().textContent = W.chart;
    const head = table.createTHead().insertRow();
    const series = (this.data.series ?? []).slice(0, COLUMNS);
    for (const words of [...W.chartHeads, ...series.map((/** @type {any} */ one) => called(one).name)]) {
      const cell = head.appendChild(document.createElement('th'));
      cell.scope = 'col';
      cell.textContent = words;
    }
    const body = table.createTBody();
    this.data.counts.forEach((/** @type {number} */ value, /** @type {number} */ k) => {
      if (!value) return;
      const row = body.insertRow();
      row.insertCell().textContent = full(this.edge(k), this.zone);
      for (const n of [value, ...series.map((/** @type {any} */ one) => one.counts[k])]) row.insertCell().textContent = number(n);
    });
    return box;
  }

  /** Other counts of the same are on their way. */
  wait() { if (this.told && this.data) this.told.textContent = W.counting; }

  /** Names what the bars are of, with how many there are from one bucket to another if these are given. @param {number} [low] @param {number} [high] */
  name(low, high) {
    /** @type {string[]} */
    const all = [];
    if (!this.data) return all;
    this.names.forEach((element, k) => {
      const one = this.data.series[k];
      const { name, kind, mark } = called(one);
      element.className = kind;
      element.textContent = mark ? `${mark} ${name}` : name;
      if (low === undefined || high === undefined) return;
      let sum = 0;
      for (let at = low; at <= high; at++) sum += one.counts[at];
      element.textContent += ` ${number(sum)}`;
      if (sum) all.push(`${number(sum)} ${name}`);
    });
    return all;
  }

  /** @param {string} words */
  tell(words) {
    const sum = this.data?.counts.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0) ?? 0;
    if (!words) this.name();
    if (this.told && this.data) this.told.textContent = words || `${count(sum, 'record')} · ${W.perBucket} ${span(this.data.interval_ms)}`;
  }

  /** @param {number} first @param {number} last */
  mark(first, last) {
    const [low, high] = [Math.min(first, last), Math.max(first, last)];
    const step = this.box.clientWidth / this.data.counts.length;
    this.brush?.setAttribute('x', String(low * step));
    this.brush?.setAttribute('width', String((high - low + 1) * step));
    let sum = 0;
    for (let k = low; k <= high; k++) sum += this.data.counts[k];
    this.tell(`${full(this.edge(low), this.zone)} – ${full(this.edge(high + 1), this.zone).slice(11)}: ${count(sum, 'record')}`);
    // Seen beside the names, and heard with the rest.
    const parts = document.createElement('span');
    parts.className = 'unseen';
    parts.textContent = this.name(low, high).map((words) => `, ${words}`).join('');
    this.told?.append(parts);
  }

  /** @param {MouseEvent} event */
  bucket(event) {
    const x = event.clientX - this.box.getBoundingClientRect().left;
    const n = this.data.counts.length;
    return Math.max(0, Math.min(n - 1, Math.floor(x / this.box.clientWidth * n)));
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (!this.data || event.button) return;
    this.box.setPointerCapture(event.pointerId);
    this.anchor = this.cursor = this.bucket(event);
    this.mark(this.anchor, this.cursor);
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.data) return;
    this.cursor = this.bucket(event);
    this.mark(this.anchor < 0 ? this.cursor : this.anchor, this.cursor);
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (!this.data || this.anchor < 0) return;
    this.cursor = this.bucket(event);
    this.zoom();
  }

  zoom() {
    const [low, high] = [Math.min(this.anchor, this.cursor), Math.max(this.anchor, this.cursor)];
    this.anchor = -1;
    this.onZoom(iso(this.edge(low)), iso(Math.min(this.edge(high + 1) - 1, Math.max(Date.parse(this.data.to), this.edge(low)))));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.data) return;
    const n = this.data.counts.length;
    if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const step = event.key === 'ArrowLeft' ? -1 : 1;
      if (event.shiftKey && this.anchor < 0) this.anchor = Math.max(0, this.cursor);
      if (!event.shiftKey) this.anchor = -1;
      this.cursor = Math.max(0, Math.min(n - 1, this.cursor + step));
      this.mark(this.anchor < 0 ? this.cursor : this.anchor, this.cursor);
    } else if (event.key === 'Enter' && this.cursor >= 0) {
      if (this.anchor < 0) this.anchor = this.cursor;
      this.zoom();
    } else if (event.key === 'Escape') {
      this.anchor = this.cursor = -1;
      this.brush?.setAttribute('width', '0');
      this.tell('');
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
