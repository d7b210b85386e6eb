// The side panel: one record with all of its bytes and fields, and the records around it; or the fields of all.

import { around } from './context.js';
import { columnButton, fields, FieldsPanel, PARSED_MAX, termButtons, termOf } from './fields.js';
import { AROUND, AROUND_MAX, MORE, button, everyTopic, make, neighbour } from './inset.js';
import { colour } from './rows.js';
import { fill, runs } from './text.js';
import { ago, full, iso, ulidMs } from './time.js';
import { W, bytes, number } from './words.js';

/** So many runs are drawn at once, each an element; the next time more. */
const DRAWN = 4096;
const HOUR = 3600e3;

export class Side {
  /** @param {HTMLElement} box @param {{zone: () => string, matches: () => (text: string) => number[], onCopy: (text: string) => void, onLink: () => void, onTerm: (text: string, out: boolean) => void,
   *   onContext: (n: number) => void, onInList: (before: number, after: number) => void, columns: () => string[], onColumn: (name: string) => void, onClose: () => void}} with_ */
  constructor(box, with_) {
    this.box = box;
    this.with = with_;
    /** @type {any} */
    this.record = null;
    this.isEveryTopic = false;
    /** Which records around one are waited for. */
    this.turn = 0;
    this.fields = new FieldsPanel(make('div', 'all-fields'), with_);
    this.isFields = false;
    box.setAttribute('aria-label', W.details);
  }

  get isOpen() { return !this.box.hidden; }

  close() { this.hide(); this.with.onClose(); }

  hide() { this.box.hidden = true; this.record = null; this.isFields = false; this.fields.close(); }

  /** @param {any} record */
  open(record) {
    this.hide();
    this.record = record;
    this.box.hidden = false;
    this.draw();
  }

  /** The fields of what is loaded. @param {import('./store.js').Store} store */
  openFields(store) {
    if (!this.isFields) {
      this.hide();
      this.isFields = true;
      this.box.hidden = false;
      const head = make('header', 'side-head');
      head.append(make('h2', '', W.fields), make('span', 'grow'), this.closer());
      this.box.replaceChildren(head, this.fields.box);
      this.fields.box.replaceChildren();
    }
    this.fields.look(store);
  }

  closer() {
    const close = button('×', () => this.close(), 'close');
    close.title = W.close;
    close.setAttribute('aria-label', W.close);
    return close;
  }

  draw() {
    const { record } = this;
    if (!record) return;
    const ms = ulidMs(record.ulid);
    const head = make('header', 'side-head');
    head.append(
      make('span', `topic ${colour(record.topic)}`, record.topic), make('time', '', full(ms, this.with.zone())),
      make('span', 'quiet', ago(ms, Date.now())), make('span', 'grow'), this.closer(),
    );
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
    const found = record.text.length < PARSED_MAX ? fields(record.text) : [];
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

  /** @param {import('./fields.js').Field[]} found */
  table(found) {
    const table = /** @type {HTMLTableElement} */ (make('table', 'fields'));
    const { text } = this.record;
    for (const field of found) {
      const [name, value] = field;
      const row = table.insertRow();
      const head = row.appendChild(document.createElement('th'));
      head.scope = 'row';
      fill(head, runs(name.slice(0, 200), true).all, () => []);
      fill(row.insertCell(), runs(value.slice(0, 2000), true).all, () => []);
      row.insertCell().append(
        columnButton(name, this.with.columns().includes(name), () => { this.with.onColumn(name); table.replaceWith(this.table(found)); }),
        ...termButtons(name, (out) => this.with.onTerm(termOf(text, field), out)),
      );
    }
    return table;
  }

  /** The records around this one, whatever was asked. @param {number} [before] @param {number} [after] */
  async context(before = AROUND, after = before) {
    const { record, place } = this;
    if (!record || !place) return;
    [before, after] = [Math.min(before, AROUND_MAX), Math.min(after, AROUND_MAX)];
    this.with.onContext(Math.max(before, after));
    const turn = ++this.turn;
    try {
      const found = await around(record, before, after, this.isEveryTopic);
      if (this.record !== record || this.turn !== turn) return;
      const list = make('ol', 'around');
      list.tabIndex = 0;
      list.append(...found.before.map((one) => this.neighbour(one)), this.neighbour(record), ...found.after.map((one) => this.neighbour(one)));
      const parts = [make('h2', '', W.context), this.contextActs(before, after), list];
      if (found.before.length === before && before < AROUND_MAX) parts.splice(2, 0, button(W.before50, () => this.context(before + MORE, after), 'more-before'));
      if (found.after.length === after && after < AROUND_MAX) parts.push(button(W.after50, () => this.context(before, after + MORE), 'more-after'));
      if (!found.isComplete) parts.push(make('p', 'amber', W.incomplete));
      place.replaceChildren(...parts);
      list.querySelector('.own')?.scrollIntoView({ block: 'center' });
    } catch (error) {
      place.replaceChildren(make('p', 'bad', `${W.noContext}: ${/** @type {any} */ (error).words ?? /** @type {any} */ (error).message}`));
    }
  }

  /** Which ones, and all of them as rows. @param {number} before @param {number} after */
  contextActs(before, after) {
    const { record } = this;
    const acts = make('div', 'acts');
    const every = everyTopic(this.isEveryTopic, (isChecked) => { this.isEveryTopic = isChecked; this.context(before, after); });
    const link = /** @type {HTMLAnchorElement} */ (make('a', '', W.asRows));
    const ms = ulidMs(record.ulid);
    const query = new URLSearchParams({ from: iso(ms - HOUR), to: iso(ms + HOUR), order: 'asc', at: record.ulid });
    if (!this.isEveryTopic) query.set('topic', record.topic);
    link.href = `?${query}`;
    acts.append(every, button(W.inList, () => this.with.onInList(before, after), 'in-list'), link);
    return acts;
  }

  /** @param {any} one */
  neighbour(one) {
    const item = neighbour(one, { zone: this.with.zone(), isEveryTopic: this.isEveryTopic, matches: this.with.matches() });
    item.classList.toggle('own', one.ulid === this.record.ulid);
    return item;
  }
}
