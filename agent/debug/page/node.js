// SPDX-License-Identifier: Apache-2.0
// Shows the node at a glance: its state, mode, Envoy, kernel, problems, and what is open.

import { get } from './api.js';
import { byId, el, set } from './dom.js';
import { ago, bytes, clock, count, many, span } from './format.js';

let config = null;
let plan = { repaired: -1 };

// cards shows a summary, and then what has to be read besides.
export async function cards(s) {
  const show = () => set(byId('cards'), [state(s), mode(s), envoy(s), kernel(s), problems(s), openings()].map(card));
  show();
  if (await details(s)) show();
}

// details reads what changes seldom, or is large. It says whether it has read anything.
async function details(s) {
  try {
    const had = [config, plan];
    config ??= await get('v1/config');
    if (plan.repaired !== s.redirect.driftRepaired) plan = { repaired: s.redirect.driftRepaired, ...(await get('v1/redirect')) };
    return had[0] !== config || had[1] !== plan;
  } catch {
    // The cards have less, and the banner says that the agent does not answer.
    return false;
  }
}

// card is one of them: a title, what matters most, and more lines. Each of bad is a line
// that says what is wrong.
function card({ title, value, lines, bad }) {
  const wrong = bad.filter(Boolean);
  return el('article', { class: 'card' + (wrong.length ? ' wrong' : '') },
    el('h3', null, title),
    el('p', { class: 'value' }, value),
    wrong.map((text) => el('p', { class: 'bad' }, text)),
    el('ul', null, lines.filter(Boolean).map((text) => el('li', null, text))));
}

function state(s) {
  const p = s.podCount;
  return {
    title: 'State',
    value: s.phase,
    bad: [s.reason, s.notReady && s.notReady !== s.reason && `not ready: ${s.notReady}`, s.stuck && `stuck: ${s.stuck}`],
    lines: [
      `${p.redirected} of ${many(p.enrolled, 'enrolled pod')} redirected, ${many(p.all, 'pod')} on this node`,
      s.podCount.enrolled === 0 && 'To begin: kubectl label namespace NAME nodevoy.io/redirect=enabled',
      s.redirectingSince && `redirecting for ${span((new Date(s.at) - new Date(s.redirectingSince)) / 1000)}`,
      s.pendingSince && `a change waits since ${clock(s.pendingSince)}`,
      `frontends: ${Object.entries(s.frontendCount ?? {}).sort().map(([k, n]) => `${count(n)} ${k === 'bypass' ? 'left to kube-proxy' : k}`).join(', ') || 'none'}`,
    ],
  };
}

function mode(s) {
  const r = s.redirect;
  return {
    title: 'Mode',
    value: [r.mode, r.mechanism, r.backend && `iptables-${r.backend}`].filter(Boolean).join(', '),
    bad: [r.leftover],
    lines: r.why ?? [],
  };
}

function envoy(s) {
  const e = s.envoy;
  const m = s.memory;
  return {
    title: 'Envoy',
    value: e.version || 'version unknown',
    bad: [
      !e.connected && 'not connected to the agent',
      e.connected && !e.listenersAcked && 'listeners not accepted',
      e.probeError && `probe: ${e.probeError}`,
      e.nacks > 0 && `${many(e.nacks, 'update')} refused`,
      ...(e.lastNacks ?? []).slice(-3).map((n) => `${clock(n.at)} ${n.type.split('.').at(-1)}: ${n.detail}`),
      m.leftCount > 0 && `${many(m.leftCount, 'frontend')} of ${many(m.leftServices, 'Service')} left to kube-proxy for want of memory`,
    ],
    lines: [
      e.connected && `connected ${ago(e.since, s.at)}`,
      e.connected && e.listenersAcked && 'listeners accepted',
      `${many(e.unanswered, 'update')} unanswered, ${e.nacks} refused`,
      `Services in use take ${bytes(m.used)}${m.limit ? ` of ${bytes(m.limit)}` : ''}`,
    ],
  };
}

function kernel(s) {
  const r = s.redirect;
  const drift = (plan.drift ?? []).slice(0, 5).map((d) => `${d.pod ? d.pod + ': ' : ''}${d.kind} ${d.name}: ${d.detail}`);
  const mended = plan.mended ? ' (mended)' : '';
  return {
    title: 'Kernel',
    value: many(r.rules, 'rule'),
    bad: [r.error, r.checkError, ...(plan.mended ? [] : drift)],
    lines: [
      `applied ${ago(r.applied, s.at)}`,
      `drift repaired ${many(r.driftRepaired, 'time')}`,
      ...(plan.mended ? drift.map((d) => d + mended) : []),
    ],
  };
}

function problems(s) {
  const kinds = (s.watches ?? []).filter((w) => !w.absent);
  const watches = kinds.filter((w) => w.error).map((w) => `${w.kind} can't be read: ${w.error}`);
  const waiting = kinds.filter((w) => !w.synced && !w.error).map((w) => w.kind);
  const found = s.problems ?? [];
  const more = s.problemCount - found.length;
  return {
    title: 'Problems',
    value: s.problemCount + watches.length === 0 ? 'none' : count(s.problemCount + watches.length),
    bad: [...watches, ...found, more > 0 && `and ${count(more)} more: nodevoy status`],
    lines: [
      kinds.length === 0 ? 'no kind of objects is read yet' : waiting.length ? `being read: ${waiting.join(', ')}` : `all ${kinds.length} kinds of objects read and followed`,
    ],
  };
}

// openings are where this node's agent and Envoy listen.
function openings() {
  const flag = (name) => config?.flags?.find((f) => f.name === name)?.value;
  const debug = flag('debug-address');
  return {
    title: 'What is open',
    value: debug || 'the unix socket alone',
    bad: [],
    lines: [
      'the agent\'s unix socket, for its owner',
      debug && `this page, on ${debug}: for every process in the host's network`,
      flag('metrics-address') && `metrics and health, on ${flag('metrics-address')}`,
      config && `Envoy, for ${config.mode === 'pod' ? 'connections from within each enrolled pod' : 'redirected connections'}: ${(config.listeners ?? []).map((l) => `${l.address} (${l.class})`).join(', ') || 'nothing'}`,
    ],
  };
}
