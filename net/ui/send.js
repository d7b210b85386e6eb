// The form that sends an entry. Whether it is a valid one says the node: what it refuses stands at its field.

import { reach } from './ask.js';
import { failureOf, head, link, make } from './cards.js';
import { found } from './drawn.js';
import { told } from './notes.js';
import { failure } from './refusal.js';
import { O } from './words.js';

const LEVELS = ['info', 'warn', 'error', 'fatal', 'debug'];

/** @param {HTMLElement} box @param {{said: (words: string) => void, sent: () => void, failed: (fail: import('./ask.js').Failure) => void}} tell */
export function sendForm(box, tell) {
  const { body } = head(box, O.send);
  const level = /** @type {HTMLSelectElement} */ (make('select', ''));
  for (const one of LEVELS) level.append(new Option(one, one));
  const service = /** @type {HTMLInputElement} */ (make('input', ''));
  const message = /** @type {HTMLTextAreaElement} */ (make('textarea', ''));
  service.autocomplete = 'off';
  service.spellcheck = false;
  message.rows = 3;
  const fields = { level, service, message };
  const rest = make('p', 'why bad');
  rest.hidden = true;
  /** @type {Record<string, HTMLElement>} */
  const notes = { '': rest };
  const form = document.createElement('form');
  form.noValidate = true;
  for (const [key, field] of Object.entries(fields)) {
    const note = notes[key] = make('p', 'why bad');
    note.id = `send-${key}-why`;
    note.hidden = true;
    field.id = `send-${key}`;
    field.setAttribute('aria-describedby', note.id);
    form.append(make('label', '', O.fields[/** @type {keyof typeof fields} */ (key)], field), note);
  }
  const button = /** @type {HTMLButtonElement} */ (make('button', '', O.sendIt));
  const done = make('p', 'quiet');
  form.append(button, rest, done);
  body.append(form);

  /** @param {string} key @param {string} words */
  const refuse = (key, words) => {
    for (const [one, note] of Object.entries(notes)) {
      note.hidden = one !== key || !words;
      note.textContent = one === key ? words : '';
      const field = one ? fields[/** @type {keyof typeof fields} */ (one)] : null;
      if (one === key && words) field?.setAttribute('aria-invalid', 'true'); else field?.removeAttribute('aria-invalid');
      if (one === key && words) field?.focus();
    }
    if (words) { done.replaceChildren(); tell.said(words); }
  };

  form.onsubmit = async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    try {
      const entry = { level: level.value, service: service.value, message: message.value };
      const answer = await reach('log', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(entry) });
      if (!answer.ok) throw await failure(answer);
      const { timestamp } = await answer.json();
      refuse('', '');
      message.value = '';
      const words = `${O.accepted} ${timestamp}`;
      done.replaceChildren(words, ' ', link(found({ q: `"service":${JSON.stringify(entry.service)}`, from: '5m' }), O.showIt));
      tell.said(words);
      tell.sent();
    } catch (thrown) {
      const fail = failureOf(thrown);
      const [, key = ''] = /^(level|service|message): /.exec(fail.words) ?? [];
      refuse(key, key ? fail.words.slice(key.length + 2) : `${O.notSent} ${told(fail)}`);
      tell.failed(fail);
    } finally { button.disabled = false; }
  };
  return () => service.focus();
}
