// The query bar: text, terms as chips, topics, range; and the line of switches below it.

import { object, url } from './ask.js';
import { asked } from './state.js';
import { O, W, bytes } from './words.js';

const id = (/** @type {string} */ name) => /** @type {HTMLElement} */ (document.getElementById(name));
const input = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (document.getElementById(name));

/** @param {HTMLElement} select @param {Record<string, string>} of */
function options(select, of) {
  for (const [value, words] of Object.entries(of)) select.append(new Option(words, value));
}

export class Bar {
  /** @param {{run: (state: import('./state.js').State) => void, edited: (state: import('./state.js').State) => void, stop: () => void, look: (changed: {tz?: string, by?: string}) => void}} with_ */
  constructor(with_) {
    this.with = with_;
    /** @type {import('./state.js').State} */
    this.state = /** @type {any} */ ({});
    this.isReading = false;
    this.inBox = false;
    this.words();
    this.listen();
    this.theme(localStorage.getItem('theme') ?? 'system');
    this.wrapped(localStorage.getItem('wrap') ?? (innerWidth < 640 ? 'on' : ''));
  }

  words() {
    input('q').placeholder = W.qHint;
    /** @type {[string, string, string?][]} */
    const named = [['q', W.q], ['regex', W.regex], ['case', W.case], ['include', W.include], ['exclude', W.exclude], ['from', W.from], ['to', W.to], ['preset', W.preset], ['order', W.order], ['tz', W.tz], ['by', W.by], ['help', W.help], ['rows', W.rows]];
    for (const [name, words] of named) { id(name).setAttribute('aria-label', words); id(name).title = words; }
    id('rows').title = '';
    id('wrap').textContent = W.wrap;
    id('link').textContent = W.link;
    id('all').textContent = W.loadAll;
    id('run').textContent = W.run;
    id('live').textContent = W.live;
    id('saved').textContent = W.saved;
    id('overview').textContent = O.title;
    for (const [name, words, hint] of [['download', W.download, W.downloadHint], ['download-json', W.downloadJson, W.downloadJsonHint]]) [id(name).textContent, id(name).title] = [words, hint];
    for (const [name, words] of [['downloads', W.downloads], ['copy-as', W.copyAs]]) /** @type {HTMLElement} */ (id(name).firstElementChild).textContent = words;
    id('as-curl').textContent = W.asCurl;
    id('as-oklogd').textContent = W.asOklogd;
    id('fields').textContent = W.fields;
    /** @type {HTMLElement} */ (document.querySelector('#chart > summary')).textContent = W.chart;
    input('to').placeholder = W.now;
    options(id('preset'), W.presets);
    options(id('order'), W.orders);
    options(id('by'), W.bys);
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    options(id('tz'), { '': W.zones.local, UTC: W.zones.UTC, ...(own && own !== 'UTC' ? { [own]: own } : {}) });
  }

  /** What the bar says now. */
  read() {
    const text = input('q').value;
    return { ...this.state, q: [...this.state.q.slice(0, this.chipped), ...(text ? [text] : [])], from: input('from').value || '1h', to: input('to').value, at: '', context: 0 };
  }

  /** How many of the terms that must match stand as chips: the last one is the box's. */
  get chipped() { return Math.max(0, this.inBox ? this.state.q.length - 1 : this.state.q.length); }

  /** @param {import('./state.js').State} state */
  show(state) {
    // Terms that became chips stay chips.
    if (state.q.join('\n') !== this.state.q?.join('\n')) this.inBox = state.q.length > 0;
    this.state = state;
    input('q').value = (this.inBox && state.q[state.q.length - 1]) || '';
    input('from').value = state.from;
    input('to').value = state.to;
    /** @type {HTMLSelectElement} */ (id('preset')).value = !state.to && state.from in W.presets ? state.from : '';
    /** @type {HTMLSelectElement} */ (id('order')).value = state.order;
    /** @type {HTMLSelectElement} */ (id('by')).value = state.by === 'level' ? 'level' : '';
    const zones = /** @type {HTMLSelectElement} */ (id('tz'));
    if (state.tz && ![...zones.options].some((one) => one.value === state.tz)) zones.append(new Option(state.tz, state.tz));
    zones.value = state.tz;
    id('regex').setAttribute('aria-pressed', String(state.regex));
    id('case').setAttribute('aria-pressed', String(!state.i));
    const summary = /** @type {HTMLElement} */ (id('topics').firstElementChild);
    summary.textContent = !state.topic.length ? W.allTopics : state.topic.length === 1 ? state.topic[0] : W.someTopics(state.topic.length);
    id('live').setAttribute('aria-pressed', String(state.live));
    const query = asked(state);
    query.set('order', state.live ? 'asc' : state.order);
    for (const [name, form, file] of [['download', 'text', 'oklogd.log'], ['download-json', 'ndjson', 'oklogd.ndjson']]) {
      const link = /** @type {HTMLAnchorElement} */ (id(name));
      query.set('download', form);
      link.href = url(`query?${query}`);
      link.download = file;
    }
    this.chips();
    document.title = `${state.q.join(' ') || state.topic.join(' ') || 'all'} · oklogd`;
  }

  chips() {
    const { state } = this;
    const chip = (/** @type {string} */ text, /** @type {string} */ kind, /** @type {() => void} */ drop) => {
      const element = document.createElement('button');
      element.type = 'button';
      element.className = `chip ${kind}`;
      element.textContent = text;
      element.title = text;
      element.setAttribute('aria-label', `${kind === 'out' ? W.exclude : W.include}: ${text}. ${W.close}`);
      element.onclick = drop;
      return element;
    };
    const without = (/** @type {string[]} */ all, /** @type {number} */ at) => all.filter((_, k) => k !== at);
    id('chips').replaceChildren(
      ...state.q.slice(0, this.chipped).map((text, k) => chip(text, 'in', () => this.with.run({ ...this.read(), q: without(this.read().q, k) }))),
      ...state.x.map((text, k) => chip(text, 'out', () => this.with.run({ ...this.read(), x: without(state.x, k) }))),
    );
  }

  /** The text of the box becomes a chip. @param {boolean} out */
  add(out) {
    const text = input('q').value;
    if (!text) { input('q').focus(); return; }
    const next = this.read();
    if (out) { next.q = next.q.slice(0, -1); next.x = [...next.x, text]; }
    this.with.run(next);
    this.inBox = false;
    this.chips();
    input('q').value = '';
    input('q').focus();
  }

  /** @param {boolean} isReading */
  reading(isReading) {
    this.isReading = isReading;
    id('run').textContent = isReading ? W.stop : W.run;
    id('run').classList.toggle('stop', isReading);
  }

  listen() {
    const { with: given } = this;
    const run = (/** @type {Partial<import('./state.js').State>} */ changed) => given.run({ ...this.read(), ...changed });
    id('bar').addEventListener('submit', (event) => {
      event.preventDefault();
      const isButton = /** @type {SubmitEvent} */ (event).submitter === document.activeElement;
      if (this.isReading && isButton) given.stop(); else run({});
    });
    for (const name of ['q', 'from', 'to']) input(name).addEventListener('input', () => given.edited(this.read()));
    input('q').addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || !(event.shiftKey || event.altKey)) return;
      event.preventDefault();
      this.add(event.altKey);
    });
    id('include').onclick = () => this.add(false);
    id('exclude').onclick = () => this.add(true);
    id('regex').onclick = () => run({ regex: !this.state.regex });
    id('case').onclick = () => run({ i: !this.state.i });
    id('live').onclick = () => run({ live: !this.state.live, to: '' });
    id('order').onchange = () => run({ order: /** @type {HTMLSelectElement} */ (id('order')).value });
    id('tz').onchange = () => {
      this.state = { ...this.state, tz: /** @type {HTMLSelectElement} */ (id('tz')).value };
      given.look({ tz: this.state.tz });
    };
    id('by').onchange = () => {
      this.state = { ...this.state, by: /** @type {HTMLSelectElement} */ (id('by')).value || 'topic' };
      given.look({ by: this.state.by });
    };
    const zones = /** @type {HTMLSelectElement} */ (id('tz'));
    const all = () => {
      const there = new Set([...zones.options].map((one) => one.value));
      zones.append(...Intl.supportedValuesOf('timeZone').filter((one) => !there.has(one)).map((one) => new Option(one, one)));
    };
    // There are hundreds: they are added once somebody looks.
    for (const event of ['pointerdown', 'focus']) zones.addEventListener(event, all, { once: true });
    id('preset').onchange = () => this.preset(/** @type {HTMLSelectElement} */ (id('preset')).value, run);
    id('topics').addEventListener('toggle', () => this.topics());
    for (const menu of /** @type {NodeListOf<HTMLDetailsElement>} */ (document.querySelectorAll('.menu'))) {
      document.addEventListener('pointerdown', (event) => { if (!menu.contains(/** @type {Node} */ (event.target))) menu.open = false; });
      menu.addEventListener('focusout', (event) => {
        if (!menu.contains(/** @type {Node | null} */ (event.relatedTarget)) && event.relatedTarget) menu.open = false;
      });
    }
    id('theme').onclick = () => {
      const all = Object.keys(W.theme);
      this.theme(all[(all.indexOf(document.documentElement.dataset.theme ?? 'system') + 1) % all.length]);
    };
    id('wrap').onclick = () => {
      this.wrapped(document.body.classList.contains('wrap') ? '' : 'on');
      given.look({});
    };
  }

  /** @param {string} value @param {(changed: Partial<import('./state.js').State>) => void} run */
  async preset(value, run) {
    if (value !== 'all') { if (value) run({ from: value, to: '' }); return; }
    const { topics } = await object('topics').catch(() => ({ topics: [] }));
    const from = topics.map((/** @type {{from: string}} */ one) => one.from).sort()[0];
    run({ from: from ?? '1970-01-01T00:00:00Z', to: '' });
  }

  async topics() {
    if (!(/** @type {HTMLDetailsElement} */ (id('topics')).open)) return;
    const list = id('topic-list');
    try {
      const { topics } = await object('topics');
      list.replaceChildren(...topics.map((/** @type {{topic: string, records: number, bytes: number}} */ one) => {
        const label = document.createElement('label');
        const box = document.createElement('input');
        box.type = 'checkbox';
        box.checked = this.state.topic.includes(one.topic);
        box.onchange = () => {
          const kept = this.state.topic.filter((name) => name !== one.topic);
          this.with.run({ ...this.read(), topic: box.checked ? [...kept, one.topic] : kept });
        };
        const size = document.createElement('span');
        size.className = 'quiet';
        size.textContent = bytes(one.bytes);
        label.append(box, ` ${one.topic} `, size);
        return label;
      }));
      if (!topics.length) list.textContent = '–';
    } catch (fail) { list.textContent = /** @type {import('./ask.js').Failure} */ (fail).words; }
  }

  /** @param {string} name */
  theme(name) {
    document.documentElement.dataset.theme = name;
    localStorage.setItem('theme', name);
    id('theme').textContent = W.theme[/** @type {keyof typeof W.theme} */ (name)] ?? W.theme.system;
  }

  /** @param {string} on */
  wrapped(on) {
    document.body.classList.toggle('wrap', on === 'on');
    localStorage.setItem('wrap', on);
    id('wrap').setAttribute('aria-pressed', String(on === 'on'));
  }

  focus() { input('q').focus(); input('q').select(); }
  focusRange() { input('from').focus(); input('from').select(); }
}
