// The token that what answers may ask for: kept for this tab alone and gone with it, never in a URL.

import { W } from './words.js';

const NAME = 'token';

function stored() {
  try { return sessionStorage.getItem(NAME) ?? ''; } catch { return ''; }
}

let token = stored();
/** One was given, and what is asked again may want another. */
let isAsking = false;

/** Whether there is one, so that a plain link cannot do. */
export const hasToken = () => token !== '';

/** What a request says of who asks. @returns {Record<string, string>} */
export const bearer = () => (token ? { authorization: `Bearer ${token}` } : {});

/** Asks for a token; then whatever was refused is asked again. @param {() => void} again */
export function tokenForm(again) {
  const form = document.createElement('form');
  const input = document.createElement('input');
  const use = document.createElement('button');
  form.className = 'token';
  input.type = 'password';
  input.autocomplete = 'off';
  input.placeholder = W.token;
  input.setAttribute('aria-label', W.token);
  use.textContent = W.useToken;
  form.append(input, use);
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    // Nothing else can stand in a header.
    if (!/^[\x21-\x7e]*$/.test(text)) { input.setCustomValidity(W.badToken); input.reportValidity(); return; }
    token = text;
    try { if (text) sessionStorage.setItem(NAME, text); else sessionStorage.removeItem(NAME); } catch { /* Forbidden: it goes with the page. */ }
    isAsking = true;
    again();
  };
  input.oninput = () => input.setCustomValidity('');
  if (isAsking) queueMicrotask(() => input.focus());
  isAsking = false;
  return form;
}
