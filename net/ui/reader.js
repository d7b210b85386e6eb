// Worker: reads answers of the node and cuts them into lines, so that the page never waits for them.
//
// In: {id, url, headers} or {id, stop: true}. Out, each with its id: {head}, any number of {bytes, ends},
// then one of {end} (the object that the node closes an answer with) and {fail}. With `after` it follows
// live behind that ULID, over every loss of the node: {live} says whether it is there (and where it is but
// has no time, {why}), {note, data} what it says beside records (`missed`, `incomplete`, `end`, and what a
// later version may add). Of what comes live there is one batch at a time, which the page says it has {taken}: a
// page that is slow gets fewer and larger ones, and one that takes none is read for no longer.

import { failure } from './refusal.js';

const LF = 10;
/** @type {Map<number, AbortController>} */
const running = new Map();
const TOLD = ['x-oklog-from', 'x-oklog-to', 'x-oklog-complete', 'x-oklog-error-count'];

onmessage = ({ data }) => {
  if (data.stop) running.get(data.id)?.abort();
  else if (data.taken) ways.get(data.id)?.taken();
  else (data.after ? followed(data) : read(data)).finally(() => { running.delete(data.id); ways.delete(data.id); });
};

/** @param {{id: number, url: string, headers: Record<string, string>}} request */
async function read({ id, url, headers }) {
  const control = new AbortController();
  running.set(id, control);
  try {
    const answer = await fetch(url, { headers, signal: control.signal, cache: 'no-store' });
    const told = Object.fromEntries(TOLD.map((name) => [name, answer.headers.get(name)]));
    if (!answer.ok || !answer.body) {
      postMessage({ id, fail: await failure(answer) });
      return;
    }
    postMessage({ id, head: told });
    await lines(id, answer.body.getReader());
  } catch (error) {
    postMessage({ id, fail: { status: control.signal.aborted ? -1 : 0, words: String(error), retry: 0 } });
  }
}

/** @param {number} id @param {ReadableStreamDefaultReader<Uint8Array>} source */
async function lines(id, source) {
  /** @type {Uint8Array[]} */
  let parts = [];
  let end = null;
  for (;;) {
    const { done, value } = await source.read();
    if (done) break;
    const last = value.lastIndexOf(LF);
    if (last < 0) { parts.push(value); continue; }
    const bytes = joined([...parts, value.subarray(0, last + 1)]);
    parts = last + 1 < value.length ? [value.slice(last + 1)] : [];
    const ends = [];
    for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) ends.push(at);
    end = closing(bytes, ends) ?? end;
    if (ends.length) {
      const all = Uint32Array.from(ends);
      postMessage({ id, bytes, ends: all }, { transfer: [bytes.buffer, all.buffer] });
    }
  }
  postMessage(end ? { id, end } : { id, fail: { status: 0, words: '', retry: 0, brokeOff: true } });
}

/** So long what comes live is gathered, milliseconds: two or three frames. */
const BATCH_MS = 40;
/** So much of it waits for the page, characters; more is left to the node. */
const HELD_MAX = 4 << 20;

/** What comes live on its way to the page. */
class Way {
  /** @param {number} id */
  constructor(id) {
    this.id = id;
    /** @type {string[]} */
    this.parts = [];
    this.held = 0;
    this.isOut = false;
    this.isDue = false;
    this.goOn = () => {};
  }

  /** Lines. @param {string} lines */
  push(lines) {
    this.parts.push(lines);
    this.held += lines.length;
    if (this.isDue) return;
    this.isDue = true;
    setTimeout(() => { this.isDue = false; this.send(); }, BATCH_MS);
  }

  send() {
    if (this.isOut || !this.held) return;
    const bytes = new TextEncoder().encode(this.parts.join(''));
    [this.parts, this.held, this.isOut] = [[], 0, true];
    const ends = [];
    for (let end = bytes.indexOf(LF); end >= 0; end = bytes.indexOf(LF, end + 1)) ends.push(end);
    const packed = Uint32Array.from(ends);
    postMessage({ id: this.id, bytes, ends: packed, isBatch: true }, { transfer: [bytes.buffer, packed.buffer] });
  }

  /** The page has the batch before. */
  taken() {
    this.isOut = false;
    if (!this.isDue) this.send();
    this.goOn();
  }

  /** Until there is room for more. @param {AbortSignal} signal */
  async room(signal) {
    while (this.held > HELD_MAX && !signal.aborted) await new Promise((go) => { this.goOn = () => go(undefined); });
  }
}

/** @type {Map<number, Way>} */
const ways = new Map();

const PAUSE_MS = 250;
const PAUSE_MAX_MS = 5000;

/** @param {{id: number, url: string, headers: Record<string, string>, after: string}} request */
async function followed({ id, url, headers: given, after }) {
  const control = new AbortController();
  running.set(id, control);
  const at = { after };
  const way = new Way(id);
  ways.set(id, way);
  control.signal.addEventListener('abort', () => way.goOn());
  for (let pause = PAUSE_MS; !control.signal.aborted; pause = Math.min(PAUSE_MAX_MS, 2 * pause)) {
    /** @type {import('./refusal.js').Failure | undefined} */
    let why;
    try {
      const headers = { accept: 'text/event-stream', ...given, 'last-event-id': at.after };
      const answer = await fetch(url, { headers, signal: control.signal, cache: 'no-store' });
      if (answer.ok && answer.body) {
        postMessage({ id, live: true });
        pause = PAUSE_MS;
        await events(way, answer.body.getReader(), at, control.signal);
      } else {
        why = await failure(answer);
        if (answer.status < 429) { postMessage({ id, fail: why }); return; }
      }
    } catch { /* Gone: it comes back. */ }
    if (control.signal.aborted) return;
    postMessage({ id, live: false, why });
    await new Promise((go) => { setTimeout(go, why?.retry ? 1000 * why.retry : pause); });
  }
}

/** Server-sent events: each record's object becomes a line as an answer has it. What has not come to its empty line has not come: it is asked for anew. @param {Way} way @param {ReadableStreamDefaultReader<Uint8Array>} source @param {{after: string}} at @param {AbortSignal} signal */
async function events(way, source, at, signal) {
  const decoder = new TextDecoder();
  let text = '';
  let [name, data, ulid] = ['', '', at.after];
  for (;;) {
    const { done, value } = await source.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const last = text.lastIndexOf('\n');
    if (last < 0) continue;
    const all = text.slice(0, last).split('\n');
    text = text.slice(last + 1);
    let records = '';
    for (const line of all) {
      if (line.startsWith('data: ')) data = line.slice(6);
      else if (line.startsWith('id: ')) ulid = line.slice(4);
      else if (line.startsWith('event: ')) name = line.slice(7);
      if (line) continue;
      at.after = ulid;
      if (data && !name) records += `${data}\n`;
      else if (name) postMessage({ id: way.id, note: name, data: object(data) });
      [name, data] = ['', ''];
    }
    if (records) way.push(records);
    await way.room(signal);
  }
}

/** What a note says; nothing of it is relied on. @param {string} text @returns {Record<string, any>} */
function object(text) {
  try { return Object(JSON.parse(text)); } catch { return {}; }
}

/** The object of the last line, if it is the one that closes an answer; it is no record. @param {Uint8Array} bytes @param {number[]} ends */
function closing(bytes, ends) {
  const from = ends.length > 1 ? ends[ends.length - 2] + 1 : 0;
  const line = new TextDecoder().decode(bytes.subarray(from, Math.min(from + 7, bytes.length)));
  if (!line.startsWith('{"end":')) return null;
  const to = ends.pop();
  return JSON.parse(new TextDecoder().decode(bytes.subarray(from, to))).end;
}

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}
