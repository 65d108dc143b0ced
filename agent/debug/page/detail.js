// SPDX-License-Identifier: Apache-2.0
// All of one flow, and why it went where it did.

import { get } from './api.js';
import { answer } from './answer.js';
import { byId, el, link, set } from './dom.js';
import { bytes, clock, millis } from './format.js';
import { failed, grpc, outcome, peer, request, service } from './flow.js';

let shown = 0;

// detail opens the dialog with a flow.
export async function detail(f) {
  shown = f.id;
  const why = el('div', { class: 'why', 'aria-live': 'polite' }, 'Asking why…');
  set(byId('flow-title'), `Flow ${f.id}: ${request(f)}`);
  set(byId('flow-body'),
    el('p', { class: 'lead' }, el('span', { class: 'state ' + (failed(f) ? 'bad' : 'ok') }, outcome(f)), ` ${peer(f.source)} → ${service(f)} → ${peer(f.backend)}`),
    (f.flags ?? []).map((x) => el('p', { class: failed(f) ? 'bad' : '' }, `${x.flag}: ${x.words || 'a flag of Envoy\'s'}`)),
    el('dl', { class: 'facts' }, facts(f).filter(([, v]) => v).flatMap(([k, v]) => [el('dt', null, k), el('dd', null, v)])),
    el('h3', null, 'Why'), why,
    el('p', { class: 'links' },
      link('flows', { from: f.source.pod ? peer(f.source) : address(f.source) }, 'Flows of this caller'), ' ',
      link('flows', { to: f.service.name ? service(f) : f.frontend }, 'Flows to this Service'), ' ',
      link('why', { flow: f.id }, 'Ask why by itself')));
  const dialog = byId('flow');
  if (!dialog.open) dialog.showModal();
  let said;
  try {
    said = answer(await get('v1/why', { flow: f.id }, 30_000));
  } catch (e) {
    said = [el('p', null, e.status === 404 && e.message.includes('/v1/why') ? 'This agent does not answer why.' : `No answer: ${e.message}.`)];
  }
  if (shown === f.id) set(why, said);
}

// address is that of a peer, without its port.
function address(p) {
  return p.address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}

function place(p) {
  return [p.pod && peer(p), p.workload && `workload ${p.workload}`, p.address, p.node && `node ${p.node}`, p.zone && `zone ${p.zone}`].filter(Boolean).join(', ');
}

function facts(f) {
  return [
    ['Began', `${clock(f.time)} (${f.time})`],
    ['Seen by', f.origin === 'kernel' ? 'the kernel: the connection was not redirected' : 'Envoy'],
    ['Source', place(f.source)],
    ['Service', f.service.name ? `${service(f)}, dialled at ${f.frontend}` : `none; dialled ${f.frontend}`],
    ['Class', [f.class, f.classReason].filter(Boolean).join(': ')],
    ['Backend', place(f.backend) || 'none'],
    ['Protocol', f.protocol],
    ['Request', f.method && request(f)],
    ['Host', f.host],
    ['Status', f.status && String(f.status)],
    ['gRPC status', grpc(f)],
    ['Detail', f.detail],
    ['Bytes', !f.open && `${bytes(f.bytesSent)} sent, ${bytes(f.bytesReceived)} received`],
    ['Took', f.open ? 'it had not ended when this was told' : millis(f.durationMs)],
    ['Connect', f.connectMs && millis(f.connectMs)],
    ['First byte', f.firstByteMs && millis(f.firstByteMs)],
    ['Attempts', f.attempts && String(f.attempts)],
    ['Request id', f.requestId],
    ['Trace id', f.traceId],
  ];
}
