// Queries that were saved under a name, and those that were run lately; both stay in the browser.

import { W } from './words.js';

const HISTORY_MAX = 30;

/** @param {string} name @returns {any[]} */
function stored(name) {
  try { const all = JSON.parse(localStorage.getItem(name) ?? '[]'); return Array.isArray(all) ? all : []; } catch { return []; }
}

/** @param {string} name @param {any[]} all */
function store(name, all) {
  try { localStorage.setItem(name, JSON.stringify(all)); } catch { /* Full or forbidden: it is forgotten with the page. */ }
}

/** @param {string} search */
export function remember(search) {
  store('history', [search, ...stored('history').filter((one) => one !== search)].slice(0, HISTORY_MAX));
}

/** What a query asks, for people. @param {string} search */
function told(search) {
  const all = new URLSearchParams(search);
  const words = [...all.getAll('q'), ...all.getAll('x').map((one) => `−${one}`), ...all.getAll('topic').map((one) => `[${one}]`)];
  return `${words.join(' ') || '*'} · ${all.get('from') ?? '1h'}`;
}

export class Saved {
  /** @param {HTMLDialogElement} dialog @param {(search: string) => void} run */
  constructor(dialog, run) {
    this.dialog = dialog;
    this.run = run;
    dialog.setAttribute('aria-label', W.saved);
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  }

  open() { this.draw(); this.dialog.showModal(); }

  draw() {
    const form = document.createElement('form');
    const name = document.createElement('input');
    const save = document.createElement('button');
    name.placeholder = W.saveAs;
    name.setAttribute('aria-label', W.saveAs);
    name.maxLength = 100;
    save.textContent = W.save;
    form.append(name, save);
    form.onsubmit = (event) => {
      event.preventDefault();
      const own = name.value.trim() || told(location.search);
      store('saved', [{ name: own, search: location.search }, ...stored('saved').filter((one) => one.name !== own)]);
      this.draw();
    };
    const all = stored('saved');
    const keep = document.createElement('a');
    keep.textContent = W.exported;
    keep.download = 'oklogd-queries.json';
    keep.href = `data:application/json,${encodeURIComponent(JSON.stringify(all))}`;
    keep.hidden = !all.length;
    this.dialog.replaceChildren(
      this.title(W.saved), form, this.list(all.map((one) => [String(one.name), String(one.search)]), true), keep,
      this.title(W.history), this.list(stored('history').map((one) => [told(String(one)), String(one)]), false),
    );
  }

  /** @param {string} words */
  title(words) {
    const title = document.createElement('h2');
    title.textContent = words;
    return title;
  }

  /** @param {[string, string][]} entries @param {boolean} canGo */
  list(entries, canGo) {
    const list = document.createElement('ul');
    list.className = 'saved';
    for (const [name, search] of entries) {
      const item = document.createElement('li');
      const run = document.createElement('button');
      run.type = 'button';
      run.textContent = name;
      run.title = search;
      run.onclick = () => { this.dialog.close(); this.run(search); };
      item.append(run);
      if (canGo) {
        const go = document.createElement('button');
        go.type = 'button';
        go.textContent = '×';
        go.setAttribute('aria-label', `${W.forget}: ${name}`);
        go.onclick = () => { store('saved', stored('saved').filter((one) => one.name !== name)); this.draw(); };
        item.append(go);
      }
      list.append(item);
    }
    return list;
  }
}
