// SPDX-License-Identifier: Apache-2.0
// Shows this node's pods, and why they are redirected or not.

import { list } from './api.js';
import { byId, el, link, row, set, table } from './dom.js';

const shown = 500;

export async function pods() {
  let all;
  try {
    all = await list('v1/pods', {}, 1);
  } catch (e) {
    set(byId('pods-note'), `Pods: ${e.message}.`);
    return;
  }
  // Those that are to be redirected and aren't come first, then those that are.
  const rank = (p) => (p.enrolled ? (p.notRedirected || !p.redirected ? 0 : 1) : 2);
  const items = all.items.sort((a, b) => rank(a) - rank(b));
  table(byId('pods'), 'Pods of this node', ['Pod', 'Address', 'Redirected', 'Why', 'More'], items.slice(0, shown).map(one));
  set(byId('pods-note'), items.length === 0 ? 'No pod runs on this node, or the agent has not read them yet.'
    : items.length > shown || all.more ? `The first ${shown} are shown; /v1/pods has all.` : '');
}

function one(p) {
  const name = `${p.namespace}/${p.name}`;
  const [kind, word] = p.redirected ? ['ok', 'yes'] : p.enrolled ? ['bad', 'no'] : ['off', 'not enrolled'];
  return row(null, name, (p.ips ?? []).join(' '),
    el('span', { class: 'state ' + kind }, word),
    el('span', { title: p.netns }, [p.notRedirected, p.reason].filter(Boolean).join('; ')),
    el('span', { class: 'links' },
      link('flows', { from: name }, 'flows', { 'aria-label': `Flows of ${name}` }), ' ',
      link('why', { from: name }, 'why', { 'aria-label': `Why, from ${name}` })));
}
