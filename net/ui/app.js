// The page: what is asked goes into the URL, and from there to rows, histogram and plan, each on its own.

import { headers, object, save } from './ask.js';
import { Bar } from './bar.js';
import { curl, oklogd } from './commands.js';
import { Histogram, bucketsFor } from './histogram.js';
import { Inset } from './inset.js';
import { listen } from './keys.js';
import { Notes } from './notes.js';
import { Live } from './live.js';
import { Results } from './results.js';
import { Rows } from './rows.js';
import { Saved, remember } from './saved.js';
import { Side } from './side.js';
import { asked, bare, read, write } from './state.js';
import { matcher } from './text.js';
import { boundMs, iso, known } from './time.js';
import { hasToken } from './token.js';
import { W, bytes, count, number } from './words.js';

/** The live tail is spoken of so often, milliseconds. */
const SAY_MS = 10_000;
const id = (/** @type {string} */ name) => /** @type {HTMLElement} */ (document.getElementById(name));
const parts = { rows: id('rows'), heads: id('heads'), pane: id('pane'), track: id('track'), thumb: id('thumb') };

/** What a URL asks for; how bars are divided is remembered where it says nothing of it. @param {string} search */
const asRead = (search) => {
  const given = read(search);
  return { ...given, by: given.by || (localStorage.getItem('by') === 'level' ? 'level' : '') };
};
/** What is asked, as it was run last. */
let state = asRead(location.search);
/** @type {Results | null} */
let results = null;
/** Ends what belongs to the run before. */
let others = new AbortController();
/** Ends the histogram that was asked for last. @type {AbortController | null} */
let charting = null;
let isDirty = false;
let hasPlan = false;
/** @type {Live | null} */
let live = null;

const bar = new Bar({ run: (next) => run(next, true), edited: (next) => dirty(next), stop, look });
const notes = new Notes(id('notes'), id('empty'));
const rows = new Rows(parts);
const chart = new Histogram(id('chart-box'), (from, to) => run({ ...state, from, to, at: '' }, true));
const side = new Side(id('side'), {
  zone: () => rows.zone,
  matches: () => rows.matches,
  onCopy: copy,
  onLink: () => copyLink(true),
  onTerm: (text, out) => run({ ...state, [out ? 'x' : 'q']: [...(out ? state.x : state.q), state.regex ? escaped(text) : text], at: '', context: 0 }, true),
  onContext: (n) => view({ context: n, at: side.record?.ulid ?? '', inline: false }),
  onInList: (before, after) => {
    const own = results;
    const ulid = side.record?.ulid ?? '';
    const at = own?.store.length && ulid ? own.store.find(ulid, own.descending) : NaN;
    if (!own || !(at < own.store.end) || own.store.ulid(at) !== ulid) return;
    chosenPlace(true);
    inList(at, before, after);
  },
  columns: () => state.cols,
  onColumn: column,
  onClose: () => { if (state.context && !state.inline) view({ context: 0 }); parts.rows.focus(); },
});
const inset = new Inset(rows, {
  isDescending: () => Boolean(results?.descending),
  onContext: (n, ulid) => view({ context: n, at: ulid, inline: true }),
  onPanel: () => {
    chosenPlace(false);
    const [n, index] = [state.context, inset.index];
    inset.close();
    rows.select(index);
    open();
    side.context(n);
  },
  onClose: () => { view({ context: 0, inline: false }); parts.rows.focus(); },
});

/** Where the records around one are shown is remembered. @param {boolean} isInList */
const chosenPlace = (isInList) => localStorage.setItem('context', isInList ? 'list' : '');

/** The records around a row, within the list. @param {number} index @param {number} [before] @param {number} [after] */
function inList(index, before, after) {
  const own = results;
  if (!own || Number.isNaN(index)) return;
  side.hide();
  inset.isEveryTopic = side.isEveryTopic;
  inset.show(index, own.store.whole(index), before, after);
}

const escaped = (/** @type {string} */ text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** Something of the URL that needs no run. @param {Partial<import('./state.js').State>} changed */
function view(changed) {
  state = { ...state, ...changed };
  bar.state = { ...bar.state, ...changed };
  history.replaceState(null, '', write(state));
}

/** Makes a field a column, or no longer. @param {string} name */
function column(name) {
  const others = state.cols.filter((one) => one !== name);
  view({ cols: others.length < state.cols.length ? others : [...state.cols, name] });
  rows.showColumns(state.cols);
}

/** What rows and bars look like, not which records they are. @param {{tz?: string, by?: string}} changed */
function look({ tz, by }) {
  if (by !== undefined) {
    view({ by });
    localStorage.setItem('by', by);
    charting?.abort();
    charting = null;
    chart.wait();
    histogram();
    return;
  }
  if (tz !== undefined) view({ tz });
  rows.zone = chart.zone = known(state.tz);
  rows.redraw();
  inset.again();
  chart.draw();
  if (side.isOpen) side.draw();
}

/** Rows of a query that is no longer the one in the bar are dimmed. @param {import('./state.js').State} next */
function dirty(next) {
  isDirty = bare(next) !== bare(state);
  parts.rows.classList.toggle('stale', isDirty);
  notes.set('edited', isDirty ? { kind: 'quiet', words: W.edited } : null);
}

/** @param {import('./state.js').State} next @param {boolean} push */
function run(next, push) {
  state = next;
  if (push && write(state) !== location.search) history.pushState(null, '', write(state));
  bar.show(state);
  begin();
  dirty(state);
}

/** Runs what is asked anew; what was typed meanwhile stays. */
function begin() {
  stop();
  others = new AbortController();
  isDrawn = false;
  const wasEdited = isDirty;
  notes.clear();
  if (wasEdited) dirty(bar.read());
  rows.zone = chart.zone = known(state.tz);
  rows.matches = matcher(state);
  rows.follows = false;
  remember(write({ ...state, at: '', context: 0, live: false }));
  const own = new Results(state, { changed: () => { if (own === results) changed(); }, failed: (fail) => { if (own === results) failed(fail); } });
  results = own;
  rows.showColumns(state.cols);
  inset.drop();
  rows.show(own.store);
  live = state.live ? new Live(own, rows, { changed: tail, failed, anew: begin }) : null;
  const hadFields = side.isFields;
  side.hide();
  if (hadFields) side.openFields(own.store);
  changed();
  plan(others.signal);
  charting = null;
  // What is folded is asked for when it is unfolded.
  chart.data = null;
  histogram();
  ready(others.signal);
}

function stop() {
  notes.calm();
  results?.stop();
  live?.end();
  if (live) live.isEnded = true;
  others.abort();
  charting?.abort();
  status();
}

/** @param {AbortSignal} signal */
async function plan(signal) {
  const box = id('plan');
  box.textContent = '…';
  hasPlan = false;
  try {
    const told = await headers(`query?${asked(state)}`, signal);
    hasPlan = true;
    const of = (/** @type {string} */ name) => Number(told.get(`x-oklog-${name}`));
    box.textContent = W.planOf(count(of('segments-queried'), 'segment'), count(of('nodes-queried'), 'node'), bytes(of('max-data-set-size')));
  } catch (fail) {
    const { status } = /** @type {import('./ask.js').Failure} */ (fail);
    if (!signal.aborted) box.textContent = status === 400 ? `${W.noPlan}: ${W.refused}` : W.noPlan;
  }
}

/** Asks for the histogram, if somebody looks and it is not asked for already. */
async function histogram() {
  const box = /** @type {HTMLDetailsElement} */ (id('chart'));
  if (!box.open || charting) return;
  charting = new AbortController();
  const { signal } = charting;
  try {
    const query = asked(state);
    query.set('buckets', String(bucketsFor(id('chart-box').clientWidth)));
    query.set('by', state.by || 'topic');
    const data = await object(`query/histogram?${query}`, signal);
    chart.show(data);
    box.classList.toggle('incomplete', !data.complete);
  } catch (fail) {
    const { status, words } = /** @type {import('./ask.js').Failure} */ (fail);
    if (!signal.aborted) chart.fail(`${W.noChart}: ${status === 400 ? W.refused : words}`);
  }
}

/** Whether the node takes records and has all that it should: who looks for new ones wants to know. @param {AbortSignal} signal */
async function ready(signal) {
  const told = await object('ready', signal, 503).catch(() => null);
  if (signal.aborted || !told?.reasons?.length) return;
  const list = document.createElement('ul');
  list.append(...told.reasons.slice(0, 5).map((/** @type {unknown} */ reason) => {
    const item = document.createElement('li');
    item.textContent = String(reason);
    return item;
  }));
  notes.set('ready', { kind: 'amber', words: W.trouble, more: [list] });
}

let isDrawn = false;

/** More rows, or the end of them. */
function changed() {
  const own = /** @type {Results} */ (results);
  const { store } = own;
  if (state.at && !isDrawn && store.end > 0 && !own.reading.before) {
    isDrawn = true;
    const at = store.find(state.at, own.descending);
    rows.centre(at);
    if (state.context && at < store.end && store.ulid(at) === state.at) {
      if (state.inline) inList(at, state.context);
      else { open(); side.context(state.context); }
    }
  }
  if (live && !live.isStarted && !own.isReading && !own.isStopped && !own.broken.size) live.start();
  rows.draw();
  if (side.isFields && !own.isReading) side.openFields(store);
  notes.incomplete(own.missing, own.isComplete, rows.zone);
  notes.set('stopped', own.isStopped ? { kind: 'amber', words: W.stopped } : null);
  if (!live && !own.isReading && !store.length && !own.isStopped && own.isComplete) noRows(own);
  else notes.empty(null);
  status();
}

/** @param {Results} own */
async function noRows(own) {
  const found = await object('topics').catch(() => null);
  if (own !== results || !found) return;
  if (!found.topics.length) { notes.firstVisit(); return; }
  const newest = Math.max(...found.topics.map((/** @type {{to: string}} */ one) => Date.parse(one.to)));
  notes.noMatch(newest, rows.zone, [
    [W.widen, () => run({ ...state, from: '7d', to: '', at: '' }, true)],
    ...(state.i || !state.q.length ? [] : /** @type {[string, () => void][]} */ ([[W.anyCase, () => run({ ...state, i: true }, true)]])),
  ]);
}

/** @param {import('./ask.js').Failure} fail */
const failed = (fail) => notes.failed(fail, again);

/** Goes on where something failed: what is shown and what is typed stay as they are. */
function again() {
  notes.set('failed', null);
  if (live?.isStarted) live.start();
  else results?.again();
  if (!hasPlan) plan(others.signal);
  if (!chart.data) { charting?.abort(); charting = null; histogram(); }
  ready(others.signal);
}

/** The live tail has changed. */
function tail() {
  const own = live;
  if (!own) return;
  id('pill').hidden = !own.isPaused || !own.unseen;
  id('pill').textContent = W.unseen(number(own.unseen) + (own.isFull ? '+' : ''));
  const isOff = own.isStarted && !own.isOn && !own.isFull && !own.isEnded;
  const why = own.why ? W.liveRefused(own.why.words) : own.reason ? `${W.liveEnded(own.reason)} ${W.liveOff}` : W.liveOff;
  notes.set('live', isOff ? { kind: 'amber', words: why } : null);
  notes.set('gap', own.gaps ? { kind: 'amber', words: W.liveGap(count(own.gaps, 'span')) } : null);
  notes.set('missed', own.missed ? { kind: 'amber', words: W.missed(number(own.missed)) } : null);
  status();
}

let saidMs = -SAY_MS;

/** Ends and rates, not each row, for those who hear the page. @param {string} words @param {boolean} isReading */
function say(words, isReading) {
  const now = performance.now();
  if (isReading || words === id('said').textContent || live?.isStarted && now - saidMs < SAY_MS) return;
  saidMs = now;
  id('said').textContent = words;
}

function status() {
  const own = results;
  if (!own) return;
  bar.reading(own.isReading);
  const { store } = own;
  const words = [count(store.length, 'row')];
  if (own.isReading) words.push(W.searching);
  else words.push(W.scanned(bytes(own.scanned), number(own.skipped)), `${Math.max(1, Math.round(own.took))} ms`);
  if (own.more.after && !own.isReading) words.push(W.moreOnScroll);
  else if (!own.isReading && own.isComplete && !own.isStopped) words.push(W.complete);
  if (!own.isComplete) words.push(W.notComplete);
  if (live?.isStarted) {
    words.splice(1);
    words.push(live.isPaused ? W.livePaused : W.liveOn, W.rate(number(live.rate)));
    if (!own.isComplete) words.push(W.notComplete);
    if (live.dropped) words.push(W.dropped(number(live.dropped)));
  }
  id('counts').textContent = words.join(' · ');
  say(words.join(', '), own.isReading);
  id('counts').dataset.state = own.isReading ? 'reading' : 'done';
  id('meter').textContent = W.memory(bytes(store.bytes));
  id('all').hidden = !(own.more.after || own.more.before) || own.isReading;
}

rows.onNearEnd = () => results?.next();
rows.onMoved = () => { if (results && (state.at || state.live && !rows.follows) && rows.top - results.store.first < 100) results.load('before', 4000); };
rows.onTopic = (/** @type {string} */ topic, /** @type {boolean} */ out) => { if (!out) run({ ...state, topic: [topic], at: '' }, true); };
rows.onColumn = column;
rows.onPick = (/** @type {number} */ index) => { live?.pause(); rows.select(index); open(); };

function open() {
  const own = results;
  if (!own || Number.isNaN(rows.selected)) return;
  side.open(own.store.whole(rows.selected));
}

/** @param {string} text */
async function copy(text, words = W.copied) {
  try { await navigator.clipboard.writeText(text.replace(/(?<![\ud800-\udbff])[\udc80-\udcff]/g, (c) => `\\x${(c.charCodeAt(0) - 0xdc00).toString(16)}`)); } catch { words = W.copyFailed; }
  notes.flash(words);
}

/** With absolute times, and the chosen row. @param {boolean} toRow */
function copyLink(toRow) {
  const own = results;
  const at = toRow && own && !Number.isNaN(rows.selected) ? own.store.ulid(rows.selected) : '';
  copy(new URL(write({ ...frozen(), at, context: at ? state.context : 0 }), location.href).href, W.linkCopied);
}

/** What is asked, of the time of the last run. */
function frozen() {
  const [from, to] = range();
  return { ...state, from: iso(from), to: iso(to), live: false };
}

/** @param {(query: URLSearchParams) => string} shell */
function copyAs(shell) {
  const query = asked(frozen());
  query.set('order', state.live ? 'asc' : state.order);
  /** @type {HTMLDetailsElement} */ (id('copy-as')).open = false;
  copy(shell(query), W.commandCopied);
}

function showFields() {
  if (side.isFields) side.close();
  else if (results) side.openFields(results.store);
}

/** The range of the last run, in milliseconds. */
function range() {
  const from = results?.from ? boundMs(results.from) : Date.parse(chart.data?.from ?? '') || Date.now() - 3600e3;
  const end = results?.to ? boundMs(results.to) : NaN;
  return [from, end < Date.now() ? end : Date.now()];
}

/** @param {number} step */
function shift(step) {
  const [from, to] = range();
  const by = step * Math.max(1, (to - from) / 2);
  run({ ...state, from: iso(Math.round(from + by)), to: iso(Math.round(to + by)), at: '' }, true);
}

rows.onPaused = () => tail();
document.addEventListener('selectionchange', () => {
  const selection = getSelection();
  if (live && !live.isPaused && selection && !selection.isCollapsed && parts.rows.contains(selection.anchorNode)) live.pause();
});
// The rate falls while nothing comes, too.
setInterval(tail, 1000);
const saved = new Saved(/** @type {HTMLDialogElement} */ (id('saved-list')), (search) => run(asRead(search), true));
id('saved').onclick = () => saved.open();
id('pill').onclick = () => live?.resume();
id('link').onclick = () => copyLink(true);
id('as-curl').onclick = () => copyAs(curl);
id('as-oklogd').onclick = () => copyAs(oklogd);
id('fields').onclick = showFields;
for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll('.download'))) link.onclick = (event) => {
  if (!hasToken()) return;
  event.preventDefault();
  save(`query${new URL(link.href).search}`, link.download).then(() => notes.flash(W.downloaded), (fail) => notes.failed(fail, () => notes.set('failed', null)));
};
id('all').onclick = () => { results?.all(); status(); };
id('chart').addEventListener('toggle', () => { if (!chart.data) histogram(); });
addEventListener('popstate', () => run(asRead(location.search), false));
listen({
  rows, side, inset, bar,
  open,
  copy: () => { if (results && !Number.isNaN(rows.selected)) copy(results.store.whole(rows.selected).text); },
  link: () => copyLink(true),
  context: () => {
    if (Number.isNaN(rows.selected)) return;
    if (!side.record && localStorage.getItem('context') === 'list') { if (inset.index === rows.selected) inset.close(); else inList(rows.selected); return; }
    if (!side.record) open();
    side.context();
  },
  fields: showFields,
  shift,
  pause: () => { if (live?.isPaused) live.resume(); else live?.pause(); },
});
run(state, false);
