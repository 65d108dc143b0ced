// SPDX-License-Identifier: Apache-2.0
// The table of flows, the newest on top.

import { byId, el, set, show, table } from './dom.js';
import { emptiness } from './filters.js';
import { clock, millis } from './format.js';
import { failed, outcome, peer, reasons, request, service } from './flow.js';

const shown = 200;

export class FlowTable {
  // open is called with a flow that somebody wants to see all of.
  constructor(open) {
    this.open = open;
    this.rows = new Map();
    table(byId('flows'), 'Flows, the newest first', ['Time', 'From', 'To', 'Backend', 'Request', 'Outcome', 'Took'], []);
    this.body = byId('flows').tBodies[0];
    this.body.addEventListener('click', (e) => {
      const id = Number(e.target.closest('tr')?.dataset.id);
      if (this.rows.has(id) && String(getSelection()) === '') this.open(this.rows.get(id).flow);
    });
  }

  // render shows the newest flows; rows that stay keep the focus that they have.
  render(feed) {
    const newest = feed.newest(shown).reverse();
    const rows = new Map();
    for (const flow of newest) {
      const old = this.rows.get(flow.id);
      rows.set(flow.id, old?.flow === flow ? old : { flow, element: one(flow) });
    }
    for (const [id, old] of this.rows) {
      if (rows.get(id) !== old) old.element.remove();
    }
    let next = this.body.firstChild;
    for (const { element } of rows.values()) {
      if (element === next) next = next.nextSibling;
      else this.body.insertBefore(element, next);
    }
    this.rows = rows;
    show(byId('flows'), rows.size > 0);
    set(byId('flows-empty'), rows.size > 0 ? '' : emptiness(feed));
  }

  // step moves the focus to the next row, or to the one before.
  step(by) {
    const buttons = [...this.body.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement);
    buttons[at < 0 ? 0 : Math.min(Math.max(at + by, 0), buttons.length - 1)]?.focus();
  }
}

function one(f) {
  const bad = failed(f);
  const words = reasons(f);
  return el('tr', { class: (bad ? 'failed ' : '') + (f.origin === 'kernel' ? 'kernel' : ''), 'data-id': f.id },
    el('th', { scope: 'row' }, el('button', { type: 'button', class: 'plain', 'aria-label': `${clock(f.time)}, all of this flow` }, clock(f.time))),
    el('td', null, peer(f.source)),
    el('td', null, service(f)),
    el('td', null, peer(f.backend)),
    el('td', { class: 'request', title: request(f) }, request(f), f.origin === 'kernel' && el('span', { class: 'tag' }, 'kernel')),
    el('td', { title: words || null }, el('span', { class: 'state ' + (bad ? 'bad' : 'ok') }, outcome(f)),
      words && el('span', { class: 'unseen' }, ` ${words}`)),
    el('td', { class: 'number' }, f.open ? '–' : millis(f.durationMs)));
}
