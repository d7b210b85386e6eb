// Keys of the whole page. While something is typed, only Escape is one.

import { W } from './words.js';

/**
 * @param {{rows: import('./rows.js').Rows, side: import('./side.js').Side, inset: import('./inset.js').Inset, bar: import('./bar.js').Bar, open: () => void, copy: () => void,
 *   link: () => void, context: () => void, fields: () => void, shift: (step: number) => void, pause?: () => void}} page
 */
export function listen(page) {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById('keys'));
  const list = document.createElement('dl');
  for (const [key, words] of W.keys) {
    const name = document.createElement('dt');
    const what = document.createElement('dd');
    name.textContent = key;
    what.textContent = words;
    list.append(name, what);
  }
  const title = document.createElement('h2');
  title.textContent = W.help;
  dialog.setAttribute('aria-label', W.help);
  dialog.append(title, list);
  dialog.addEventListener('click', () => dialog.close());
  const help = () => { if (dialog.open) dialog.close(); else dialog.showModal(); };
  /** @type {HTMLElement} */ (document.getElementById('help')).onclick = help;

  /** @type {Record<string, () => void>} */
  const keys = {
    '/': () => page.bar.focus(), t: () => page.bar.focusRange(), '?': help,
    c: page.context, y: page.copy, l: page.link, f: page.fields,
    w: () => /** @type {HTMLElement} */ (document.getElementById('wrap')).click(),
    '[': () => page.shift(-1), ']': () => page.shift(1),
  };
  document.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) {
      if (event.key === '?' && dialog.open) dialog.close();
      return;
    }
    if (event.key === 'Escape') {
      const menu = /** @type {HTMLDetailsElement | null} */ (document.querySelector('.menu[open]'));
      if (menu) { menu.open = false; /** @type {HTMLElement} */ (menu.firstElementChild).focus(); }
      else if (target.matches('input, select')) page.rows.rows.focus();
      else if (page.side.isOpen) page.side.close();
      else page.inset.close();
      return;
    }
    if (target.matches('input, select, textarea')) return;
    const isOnControl = target.matches('button, a, summary');
    if (isOnControl && (event.key === 'Enter' || event.key === ' ')) return;
    if (event.key === 'Enter') { page.open(); event.preventDefault(); return; }
    if (event.key === ' ' && page.pause) { page.pause(); event.preventDefault(); return; }
    const act = keys[event.key];
    // A long record is read with the keys of a text, not with those of the list.
    if (!act && target.matches('pre') && !/^[a-zA-Z]$/.test(event.key)) return;
    if (act) { act(); event.preventDefault(); } else if (page.rows.key(event)) event.preventDefault();
  });
}
