// SPDX-License-Identifier: Apache-2.0
// Shows the Services that this node's pods use, with what their callers see of them.

import { list, text } from './api.js';
import { byId, el, link, row, set, table } from './dom.js';
import { many, millis, percent, rate } from './format.js';
import { parse, rates } from './metrics.js';
import { spark } from './spark.js';

// kept is how many values a chart has, and shown how many rows the table has at most.
const kept = 60;
const shown = 200;

const history = new Map();
let last = null;
let samples = 0;

// services refreshes the table.
export async function services() {
  const [ports, counted] = await Promise.all([inUse(), sample()]);
  const problem = ports.error ?? counted.error;
  const rows = (ports.items ?? []).map(one).sort((a, b) => b.rate - a.rate || a.key.localeCompare(b.key));
  table(byId('services'), 'Services in use on this node',
    ['Service', 'Class', 'Requests', 'Errors', 'p99', 'New connections', 'Backends'],
    rows.slice(0, shown).map((r) => r.element));
  const notes = [];
  if (problem) notes.push(problem);
  else if (rows.length === 0) {
    notes.push('No pod of this node has called a Service through Envoy yet. Enroll a pod (label its namespace nodevoy.io/redirect=enabled) and make a call, or wait for one.');
  } else if (samples < 2) notes.push('Charts begin with the second sample, in a few seconds.');
  else if (history.size === 0) notes.push('No request has been counted yet.');
  if (rows.length > shown || ports.more) notes.push(`The first ${shown} are shown; /v1/services has all.`);
  set(byId('services-note'), notes.join(' '));
}

async function inUse() {
  try {
    const all = await list('v1/services', { inUse: 'true' });
    const items = all.items.flatMap((s) => (s.ports ?? []).filter((p) => p.inUse).map((p) => ({ service: s, port: p })));
    return { items, more: all.more };
  } catch (e) {
    return { error: `Services: ${e.message}.` };
  }
}

// sample reads the metrics and appends what grew to the charts.
async function sample() {
  try {
    const at = performance.now();
    const ports = parse(await text('metrics'));
    if (last && at - last.at > 500) {
      const grown = rates(last.ports, ports, (at - last.at) / 1000);
      for (const [key, r] of grown) {
        if (!history.has(key)) history.set(key, []);
        history.get(key).push(r);
      }
      for (const [key, values] of history) {
        if (!grown.has(key)) history.delete(key);
        else if (values.length > kept) values.shift();
      }
    }
    last = { at, ports };
    samples++;
    return {};
  } catch (e) {
    return { error: e.status === 404 ? 'This agent serves no metrics, so there are no charts.' : `Metrics: ${e.message}.` };
  }
}

function one({ service, port }) {
  const name = `${service.namespace}/${service.name}`;
  const key = `${name}/${port.name || port.port}`;
  const values = history.get(key) ?? [];
  const chart = (what, of, write, kind) => spark(`${what} of ${key}`, values.map(of), write, kept, kind);
  return {
    key,
    rate: values.at(-1)?.requests ?? 0,
    element: row(null, link('flows', { to: key }, key, { title: 'Its flows' }),
      el('span', { title: port.why }, port.class),
      chart('requests', (v) => v.requests, rate),
      chart('errors', (v) => v.errors, percent, 'bad'),
      chart('p99', (v) => v.p99, millis),
      chart('new connections', (v) => v.connections, rate),
      el('span', { class: port.backends ? '' : 'bad' }, many(port.backends, 'backend'))),
  };
}

// known fills the lists of names that fields offer.
export async function known() {
  const options = (id, names) => set(byId(id), names.slice(0, 500).map((value) => el('option', { value })));
  try {
    const all = await list('v1/services', {}, 1);
    options('known-services', all.items.flatMap((s) => (s.ports ?? []).map((p) => `${s.namespace}/${s.name}:${p.port}`)));
    options('known-pods', (await list('v1/pods', {}, 1)).items.map((p) => `${p.namespace}/${p.name}`));
  } catch {
    // Fields work without offers, and the banner says that the agent does not answer.
  }
}
