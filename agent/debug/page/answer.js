// SPDX-License-Identifier: Apache-2.0
// Shows an answer to why: the sentence, the way as a picture, and the chain with what
// shows each link.

import { el } from './dom.js';
import { clock, count, many } from './format.js';
import { backendState, party, path } from './path.js';
import { draw, signs, words } from './pathdrawing.js';

const verdicts = {
  envoy: ['ok', 'through Envoy'], untouched: ['off', 'not touched'], bypassed: ['bad', 'past Envoy'], fails: ['bad', 'fails'], unknown: ['off', 'not known'],
};

// answer returns elements.
export function answer(a) {
  const [kind, word] = verdicts[a.verdict] ?? ['off', a.verdict];
  const picture = el('div', { class: 'picture' });
  fit(picture, a);
  return [
    el('p', { class: 'lead' }, el('span', { class: 'state ' + kind }, word), ` ${a.sentence}`),
    picture,
    el('ol', { class: 'chain' }, a.chain.map(link)),
    el('p', { class: 'note' }, `From ${party(a.from)} to ${party(a.to)}, by the agent of ${a.node} at ${clock(a.at)}. `,
      a.live ? 'The kernel and Envoy were looked at.' : 'By what the agent has published: the kernel and Envoy were not looked at.'),
  ];
}

// fit draws the picture for the width that it has, and anew when that changes.
function fit(picture, a) {
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(picture.clientWidth);
    if (width === drawn || width === 0) return;
    drawn = width;
    picture.replaceChildren(draw(path(a), width, a.sentence));
  }).observe(picture);
}

function link(l) {
  return el('li', { class: 'link ' + l.state },
    el('span', { class: 'sign', 'aria-hidden': 'true' }, signs[l.state] ?? ''),
    el('div', null,
      el('p', null, el('strong', null, l.name), ' ', el('span', { class: 'unseen' }, `(${words[l.state] ?? l.state}) `), l.text),
      (l.evidence ?? []).map((text) => el('p', { class: 'evidence' }, text)),
      l.rule && rule(l.rule),
      (l.sets ?? []).map((s) => el('p', { class: 'evidence' }, entry(s))),
      l.backends?.length > 0 && el('ul', { class: 'evidence' }, l.backends.map(backend))));
}

function rule(r) {
  const counted = r.packets === undefined ? '' : `; it has matched ${many(r.packets, 'connection')}`;
  return el('p', { class: 'evidence' }, el('code', null, `${r.table} ${r.chain}: ${r.spec}`), ` (${r.reason}${counted})`);
}

function entry(s) {
  if (s.missing) return `there is no set ${s.set}`;
  const left = s.leftNanoseconds ? `, for ${Math.round(s.leftNanoseconds / 1e9)} s more` : '';
  return `${s.member} is ${s.there ? 'in' : 'not in'} set ${s.set}${left}`;
}

function backend(b) {
  const state = backendState(b);
  const e = b.envoy;
  const seen = e && `; in Envoy: ${e.ejected ? 'ejected' : e.healthy ? 'healthy' : (e.flags ?? []).join(', ') || 'not healthy'}, weight ${e.weight}, ${count(e.active)} active, ${count(e.failed)} of ${count(e.total)} failed`;
  return el('li', { class: state }, el('span', { class: 'sign', 'aria-hidden': 'true' }, signs[state]),
    ` ${[b.pod, b.address, b.node, b.zone].filter(Boolean).join(' ')}: ${b.used ? 'used' : 'not used'}, ${b.why}${seen ?? ''}`);
}
