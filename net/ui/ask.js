// Requests to the node. Paths are relative to the page, so that it works below any prefix.

/** @param {string} path */
export const url = (path) => new URL(`../${path}`, document.baseURI).href;

/** @typedef {{status: number, words: string, retry: number, brokeOff?: boolean}} Failure */
/** @typedef {{onHead?: (head: Record<string, string | null>) => void, onRows: (bytes: Uint8Array, ends: Uint32Array) => void, onEnd?: (end: any) => void, onFail: (fail: Failure) => void, onState?: (isOn: boolean) => void, onMissed?: (records: number) => void}} Listener */

const worker = new Worker(new URL('./reader.js', import.meta.url), { type: 'module' });
/** @type {Map<number, Listener>} */
const listeners = new Map();
let last = 0;

worker.onmessage = ({ data }) => {
  const listener = listeners.get(data.id);
  if (!listener) return;
  if (data.head) listener.onHead?.(data.head);
  else if (data.live !== undefined) listener.onState?.(data.live);
  else if (data.missed) listener.onMissed?.(data.missed);
  else if (data.bytes) listener.onRows(data.bytes, data.ends);
  else {
    listeners.delete(data.id);
    if (data.fail) listener.onFail(data.fail); else listener.onEnd?.(data.end);
  }
};

/** Reads records in the worker; says how to end it, after which nothing more is heard. @param {URLSearchParams} query @param {Listener} listener */
export function records(query, listener) {
  const id = ++last;
  listeners.set(id, listener);
  worker.postMessage({ id, url: url(`query?${query}`), headers: { accept: 'application/x-ndjson' } });
  return () => { if (listeners.delete(id)) worker.postMessage({ id, stop: true }); };
}

/** Follows live behind a ULID until it is ended. @param {URLSearchParams} query @param {string} after @param {Listener} listener */
export function follow(query, after, listener) {
  const id = ++last;
  listeners.set(id, listener);
  worker.postMessage({ id, url: url(`stream?${query}`), after });
  return () => { if (listeners.delete(id)) worker.postMessage({ id, stop: true }); };
}

/** @param {Response} answer @returns {Promise<Failure>} */
async function failure(answer) {
  let words = (await answer.text()).slice(0, 2000);
  try { words = JSON.parse(words).error ?? words; } catch { /* As it is. */ }
  return { status: answer.status, words, retry: Number(answer.headers.get('retry-after')) || 0 };
}

/** An object of the node, or a {@link Failure} is thrown. @param {string} path @param {AbortSignal} [signal] */
export async function object(path, signal) {
  const answer = await reached(path, { signal });
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

/** Headers alone. @param {string} path @param {AbortSignal} signal */
export async function headers(path, signal) {
  const answer = await reached(path, { method: 'HEAD', signal });
  if (!answer.ok) throw await failure(answer);
  return answer.headers;
}

/** @param {string} path @param {RequestInit} with_ */
async function reached(path, with_) {
  try { return await fetch(url(path), { cache: 'no-store', ...with_ }); } catch (error) {
    throw { status: with_.signal?.aborted ? -1 : 0, words: String(error), retry: 0 };
  }
}
