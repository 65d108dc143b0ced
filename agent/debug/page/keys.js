// SPDX-License-Identifier: Apache-2.0
// Keyboard shortcuts: single keys, where nobody types. They can be turned off, for those
// whose tools send keys that they did not mean.

import { byId } from './dom.js';

const setting = 'nodevoy-keys';

// keys does what a key is for. Actions are functions by key.
export function keys(actions) {
  const on = byId('keys-on');
  on.checked = stored()?.getItem(setting) !== 'off';
  on.addEventListener('change', () => stored()?.setItem(setting, on.checked ? 'on' : 'off'));
  addEventListener('keydown', (e) => {
    if (!on.checked || e.ctrlKey || e.metaKey || e.altKey || e.target.closest('input, select, textarea, dialog[open]')) return;
    const action = actions[e.key];
    if (!action) return;
    e.preventDefault();
    action();
  });
}

// stored is where settings are kept; nothing in a browser that is told to keep none.
function stored() {
  try {
    return localStorage;
  } catch {
    return null;
  }
}

// dialogs makes their buttons, and a click beside them, close them.
export function dialogs() {
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', (e) => {
      if (e.target === dialog || e.target.closest('.close, a')) dialog.close();
    });
  }
  byId('help-open').addEventListener('click', () => byId('help').showModal());
}
