// The second page: what is there, who keeps it, how it is, and a way to send. Each box asks for itself.

import { Card } from './cards.js';
import { entries, health, nodes, topics } from './drawn.js';
import { Newest } from './newest.js';
import { Notes } from './notes.js';
import { sendForm } from './send.js';
import { O, W } from './words.js';

const id = (/** @type {string} */ name) => /** @type {HTMLElement} */ (document.getElementById(name));

id('search').textContent = O.search;
id('here').textContent = O.title;

/** @param {string} name */
function theme(name) {
  document.documentElement.dataset.theme = name;
  id('theme').textContent = W.theme[/** @type {keyof typeof W.theme} */ (name)] ?? W.theme.system;
}
theme(localStorage.getItem('theme') ?? 'system');
id('theme').onclick = () => {
  const all = Object.keys(W.theme);
  const next = all[(all.indexOf(document.documentElement.dataset.theme ?? 'system') + 1) % all.length];
  localStorage.setItem('theme', next);
  theme(next);
};

/** Said to those who do not see the page: what has changed for good or bad, once. @param {string} words */
function say(words) { id('said').textContent = words; }

const notes = new Notes(id('notes'), document.createElement('div'));
/** Boxes that have no answer, and why. @type {Map<unknown, import('./ask.js').Failure>} */
const failing = new Map();
let isAsking = false;

/** @param {unknown} box @param {import('./ask.js').Failure | null} fail */
function state(box, fail) {
  const before = failing.size;
  const wasGone = failing.get(box)?.status === 0;
  if (fail) failing.set(box, fail); else failing.delete(box);
  // What one has found all want to know: the node is gone, or it is back.
  if (fail?.status === 0 && !wasGone) for (const other of cards) if (!failing.has(other)) other.ask();
  if (!fail && wasGone) for (const [other, { status }] of failing) if (status === 0) again(other);
  if (!before && fail) say(O.gone);
  if (before && !failing.size) say(O.back);
  // A token is asked for once, for all of them.
  const refused = [...failing.values()].find((one) => one.status === 401 || one.status === 403);
  if (refused && !isAsking) notes.failed({ ...refused, retry: 0 }, askAll);
  if (!refused && isAsking) notes.clear();
  isAsking = Boolean(refused);
}

const card = (/** @type {string} */ name, /** @type {string} */ title, /** @type {string} */ path, /** @type {number} */ every, /** @type {(answer: any) => (Node | string)[]} */ draw, /** @type {number} */ also = 0) => new Card(id(name), { title, path, every, also, draw, onState: state });
const cards = [
  card('ready', O.health, 'ready', 5_000, health, 503),
  card('topics', O.records, 'topics', 5_000, topics),
  card('entries', O.entries, 'api/stats?by=level', 10_000, entries),
  card('nodes', O.cluster, '_clusterstate', 5_000, nodes),
];
const newest = new Newest(id('newest'), (fail) => state(newest, fail));

/** @param {unknown} box */
function again(box) {
  if (box instanceof Card) box.ask();
  else if (box === newest) newest.start();
}

function askAll() {
  if (isAsking) notes.clear();
  isAsking = false;
  failing.clear();
  for (const one of cards) { one.stop(); one.ask(); }
  newest.start();
}

function rest() {
  for (const one of cards) one.stop();
  newest.stop();
}

const focusForm = sendForm(id('send'), {
  said: say,
  sent: () => { for (const one of cards) one.ask(); },
  failed: (fail) => { if (fail.status === 401 || fail.status === 403) { failing.set('send', fail); state('send', fail); failing.delete('send'); } },
});

document.addEventListener('keydown', (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches('input, select, textarea, button, summary')) return;
  if (event.key === '/') location.href = './';
  else if (event.key === 's') focusForm();
  else if (event.key === ' ' && !target.matches('a')) newest.pause(!newest.isPaused);
  else return;
  event.preventDefault();
});

// Nobody looks: nothing is asked.
document.addEventListener('visibilitychange', () => { if (document.hidden) rest(); else askAll(); });
if (!document.hidden) askAll();
