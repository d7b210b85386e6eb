// The token that what answers may ask for, never in a URL. A node keeps it in a cookie that no script can read; for
// what else asks for one (a proxy, say) it is kept for this tab alone and gone with it.

import { W } from './words.js';

const NAME = 'token';
const LOGGED_IN = 'logged-in';

/** @param {string} name */
function stored(name) {
  try { return sessionStorage.getItem(name) ?? ''; } catch { return ''; }
}

/** @param {string} name @param {string} text */
function store(name, text) {
  try { if (text) sessionStorage.setItem(name, text); else sessionStorage.removeItem(name); } catch { /* Forbidden: it goes with the page. */ }
}

let token = stored(NAME);
let isLoggedIn = stored(LOGGED_IN) !== '';
/** One was given, and what is asked again may want another. */
let isAsking = false;

/** Whether there is one, so that a plain link cannot do. */
export const hasToken = () => token !== '';

/** Whether others who ask the same need one. */
export const needsToken = () => isLoggedIn || token !== '';

/** What a request says of who asks. @returns {Record<string, string>} */
export const bearer = () => (token ? { authorization: `Bearer ${token}` } : {});

/** Has the node keep it, or forget it where there is none; whether it does, `null`: nobody can tell now. @param {string} text */
async function logIn(text) {
  const headers = { 'content-type': 'application/json', ...(text ? { authorization: `Bearer ${text}` } : {}) };
  const url = new URL(text ? '../ui/login' : '../ui/logout', document.baseURI);
  try {
    const { ok, status } = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ token: text }) });
    return status === 429 || status >= 500 ? null : ok;
  } catch { return null; }
}

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
  form.onsubmit = async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    // Nothing else can stand in a header.
    if (!/^[\x21-\x7e]*$/.test(text)) { input.setCustomValidity(W.badToken); input.reportValidity(); return; }
    const isKept = await logIn(text);
    if (isKept !== null) {
      isLoggedIn = text !== '' && isKept;
      token = isLoggedIn ? '' : text;
      store(NAME, token);
      store(LOGGED_IN, isLoggedIn ? '1' : '');
    }
    isAsking = true;
    again();
  };
  input.oninput = () => input.setCustomValidity('');
  if (isAsking) queueMicrotask(() => input.focus());
  isAsking = false;
  return form;
}
