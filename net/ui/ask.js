// Requests to the node, each with the token if there is one. Paths are relative to the page, so that it
// works below any prefix.

import { failure } from './refusal.js';
import { bearer } from './token.js';

/** @param {string} path */
export const url = (path) => new URL(`../${path}`, document.baseURI).href;

/** @typedef {import('./refusal.js').Failure} Failure */
/** @typedef {{onHead?: (head: Record<string, string | null>) => void, onRows: (bytes: Uint8Array, ends: Uint32Array) => void, onEnd?: (end: any) => void, onFail: (fail: Failure) => void, onState?: (isOn: boolean, why?: Failure) => void, onNote?: (name: string, data: Record<string, any>) => void}} Listener */

const worker = new Worker(new URL('./reader.js', import.meta.url), { type: 'module' });
/** @type {Map<number, Listener>} */
const listeners = new Map();
let last = 0;

worker.onmessage = (/** @type {MessageEvent<any>} */ { data }) => {
  const listener = listeners.get(data.id);
  if (!listener) return;
  if (data.head) listener.onHead?.(data.head);
  else if (data.live !== undefined) listener.onState?.(data.live, data.why);
  else if (data.note) listener.onNote?.(data.note, data.data);
  else if (data.bytes) {
    if (data.isBatch) worker.postMessage({ id: data.id, taken: true });
    listener.onRows(data.bytes, data.ends);
  }
  else {
    listeners.delete(data.id);
    if (data.fail) listener.onFail(data.fail); else listener.onEnd?.(data.end);
  }
};

/** Reads records in the worker; says how to end it, after which nothing more is heard. @param {URLSearchParams} query @param {Listener} listener */
export function records(query, listener) {
  const id = ++last;
  listeners.set(id, listener);
  worker.postMessage({ id, url: url(`query?${query}`), headers: { accept: 'application/x-ndjson', ...bearer() } });
  return () => { if (listeners.delete(id)) worker.postMessage({ id, stop: true }); };
}

/** Follows live behind a ULID until it is ended. @param {URLSearchParams} query @param {string} after @param {Listener} listener */
export function follow(query, after, listener) {
  const id = ++last;
  listeners.set(id, listener);
  worker.postMessage({ id, url: url(`stream?${query}`), headers: bearer(), after });
  return () => { if (listeners.delete(id)) worker.postMessage({ id, stop: true }); };
}

/** An object of the node, or a {@link Failure} is thrown; `also` is a status that comes with an object, too. @param {string} path @param {AbortSignal} [signal] @param {number} [also] */
export async function object(path, signal, also) {
  const answer = await reach(path, { signal });
  if (!answer.ok && answer.status !== also) throw await failure(answer);
  return answer.json();
}

/** Headers alone. @param {string} path @param {AbortSignal} signal */
export async function headers(path, signal) {
  const answer = await reach(path, { method: 'HEAD', signal });
  if (!answer.ok) throw await failure(answer);
  return answer.headers;
}

/** A file for the disk of who asks, where a plain link would lack the token. @param {string} path @param {string} name */
export async function save(path, name) {
  const answer = await reach(path);
  if (!answer.ok) throw await failure(answer);
  const link = document.createElement('a');
  try { link.href = URL.createObjectURL(await answer.blob()); } catch { throw { status: 0, words: '', retry: 0, brokeOff: true }; }
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Any request; whatever the answer is, it is one, else a {@link Failure} is thrown. @param {string} path @param {RequestInit} [with_] */
export async function reach(path, with_ = {}) {
  try { return await fetch(url(path), { cache: 'no-store', ...with_, headers: { ...with_.headers, ...bearer() } }); } catch (error) {
    throw { status: with_.signal?.aborted ? -1 : 0, words: String(error), retry: 0 };
  }
}
