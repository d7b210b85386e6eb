// What the boxes of the overview show of the node's answers. Names are those of strangers: text only.

import { link, make, name } from './cards.js';
import { colour } from './rows.js';
import { ago } from './time.js';
import { O, W, bytes, count, number } from './words.js';

const LISTED = 50;
const NODES_LISTED = 200;
const SERVICES_LISTED = 12;

/** The first page with a query. @param {Record<string, string>} query */
export const found = (query) => `./?${new URLSearchParams(query)}`;

/** @param {boolean} complete */
const incomplete = (complete) => (complete === false ? [make('p', 'amber', W.incomplete)] : []);

/** @param {Node[]} rows @param {number} left */
function tally(rows, left) {
  const list = make('ul', 'tally', ...rows.map((row) => (row instanceof HTMLLIElement ? row : make('li', '', row))));
  if (left > 0) list.append(make('li', 'quiet', W.andMore(left)));
  return list;
}

/** @param {{status: string, reasons: string[]}} answer */
export function health({ status, reasons }) {
  const isWell = status === 'ok' && !reasons.length;
  return [
    make('p', `big ${isWell ? 'good' : 'bad'}`, isWell ? `● ${O.ready}` : `▲ ${O.trouble}`),
    make('ul', 'reasons', ...reasons.slice(0, LISTED).map((reason) => make('li', '', name(reason)))),
  ];
}

/** The count of the answer before, for the rate. */
let before = { records: NaN, at: 0 };

/** @param {{topics: {topic: string, records: number, bytes: number, from: string, to: string}[], complete: boolean}} answer */
export function topics({ topics: all, complete }) {
  const records = all.reduce((sum, one) => sum + one.records, 0);
  const size = all.reduce((sum, one) => sum + one.bytes, 0);
  const now = performance.now();
  const rate = (records - before.records) / (now - before.at) * 1000;
  before = { records, at: now };
  const oldest = all.map((one) => one.from).sort()[0];
  const words = [`${bytes(size)} ${O.ofText}`, count(all.length, 'topic')];
  // Old ones expire meanwhile.
  if (rate >= 0) words.push(`${number(Math.round(rate))} ${O.perSecond}`);
  const rows = [...all].sort((a, b) => b.records - a.records).slice(0, LISTED).map((one) => make(
    'li', '', link(found({ topic: one.topic, from: one.from }), make('bdi', colour(one.topic), one.topic)),
    make('span', '', number(one.records)), make('span', 'quiet', ago(Date.parse(one.to), Date.now())),
  ));
  return [
    make('p', 'big', oldest ? link(found({ from: oldest }), number(records)) : '0'), make('p', 'quiet', words.join(' · ')),
    ...incomplete(complete), all.length ? tally(rows, all.length - LISTED) : make('p', 'quiet', W.nothingKept, ' ', link('./', O.how)),
  ];
}

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug'];

/** @param {{total_logs: number, logs_by_level: Record<string, number>, logs_by_service: Record<string, number>, logs_of_other_services?: number, topic?: string, complete: boolean}} answer */
export function entries(answer) {
  const { total_logs: total, complete, topic } = answer;
  const shown = (/** @type {string} */ q) => found({ ...(q ? { q } : {}), ...(topic ? { topic } : {}), from: '24h' });
  const field = (/** @type {string} */ key, /** @type {string} */ value) => shown(`"${key}":${JSON.stringify(value)}`);
  const row = (/** @type {string} */ key, /** @type {string} */ kind) => (/** @type {[string, number]} */ [value, n]) => make(
    'li', '', link(field(key, value), make('bdi', kind && LEVELS.includes(value) ? `of-${value}` : '', value)), make('span', '', number(n)), make('span', 'quiet', share(n, total)),
  );
  const levels = LEVELS.filter((level) => answer.logs_by_level[level]).map((level) => /** @type {[string, number]} */ ([level, answer.logs_by_level[level]]));
  const services = Object.entries(answer.logs_by_service).sort((a, b) => b[1] - a[1]);
  const more = answer.logs_of_other_services;
  return [
    make('p', 'big', total ? link(shown(''), number(total)) : '0'), make('p', 'quiet', O.entriesOf), ...incomplete(complete),
    ...(total ? [
      make('h3', '', O.levels), tally(levels.map(row('level', 'of')), 0),
      make('h3', '', O.services), tally(services.slice(0, SERVICES_LISTED).map(row('service', '')), services.length - SERVICES_LISTED),
      ...(more ? [make('p', 'quiet', `${number(more)} ${O.otherServices}`)] : []),
    ] : []),
  ];
}

/** @param {number} n @param {number} of */
const share = (n, of) => `${(n / of * 100).toFixed(n / of < 0.1 ? 1 : 0)} %`;

/** @type {Record<string, [string, string]>} */
const STATES = { up: ['●', 'good'], draining: ['◐', 'amber'], suspect: ['▲', 'amber'], down: ['✖', 'bad'], forgotten: ['○', 'quiet'] };

/** @typedef {{id: string, address: string, roles: string[], state: string, version: string, backlog_bytes: number, disk_free_bytes: number, watermark: string | null}} Member */

/** @param {{self: string, name: string, insecure: boolean, nodes: Member[], volumes: {total: number, under: number, over: number, moving: number}}} answer */
export function nodes({ self, name: cluster, insecure, nodes: all, volumes }) {
  const notUp = all.filter((one) => one.state !== 'up' && one.state !== 'forgotten').length;
  const there = all.filter((one) => one.state !== 'down' && one.state !== 'forgotten');
  const fact = (/** @type {string} */ term, /** @type {string} */ value, kind = '') => make('div', '', make('dt', '', term), make('dd', kind, value));
  const facts = make(
    'dl', 'facts', fact(O.nodes, notUp ? O.notUp(all.length, notUp) : number(all.length), notUp ? 'amber' : ''),
    fact(O.backlog, bytes(there.reduce((sum, one) => sum + one.backlog_bytes, 0))),
    fact(O.leastFree, there.length ? bytes(Math.min(...there.map((one) => one.disk_free_bytes))) : '–'),
    fact(O.volumes, number(volumes.total)), fact(O.under, number(volumes.under), volumes.under ? 'bad' : ''),
    fact(O.over, number(volumes.over)), fact(O.moving, number(volumes.moving)),
  );
  const rows = all.slice(0, NODES_LISTED).map((one) => {
    const [mark, kind] = STATES[one.state] ?? ['?', 'quiet'];
    const id = make('code', 'quiet', make('bdi', '', String(one.id).slice(0, 8)));
    id.title = one.id;
    /** @type {(Node | string)[][]} */
    const cells = [
      [name(one.address), ' ', id, ...(one.id === self && all.length > 1 ? [` ${O.asked}`] : [])], [make('span', kind, `${mark} `, name(one.state))], [name(one.roles.join(', '))],
      [bytes(one.backlog_bytes)], [bytes(one.disk_free_bytes)], [name(one.version)],
    ];
    return make('tr', '', ...cells.map((parts, k) => {
      const cell = make('td', '', ...parts);
      cell.dataset.name = O.columns[k];
      return cell;
    }));
  });
  const table = make('table', 'nodes', make('thead', '', make('tr', '', ...O.columns.map((words) => make('th', '', words)))), make('tbody', '', ...rows));
  return [
    ...(all.length > 1 ? [make('p', 'quiet', name(cluster))] : []), facts, table,
    ...(all.length > NODES_LISTED ? [make('p', 'quiet', W.andMore(all.length - NODES_LISTED))] : []),
    ...(insecure && all.length > 1 ? [make('p', 'amber', O.insecure)] : []),
  ];
}
