// SPDX-License-Identifier: Apache-2.0
// Makes a graph of flows: callers, the Services that they called, and what answered. It
// is pure: flows in, boxes and lines out.

import { failed, peer, service } from './flow.js';

// graph has at most rows boxes in each column; the rest of a column is one box.
export function graph(all, rows) {
  const flows = once(all);
  const columns = [caller, called, answered].map((of) => gather(flows, of, rows));
  const lines = new Map();
  for (const flow of flows) {
    const path = columns.map((c) => c.boxOf(flow)).filter(Boolean);
    for (let i = 0; i + 1 < path.length; i++) tally(lines, path[i], path[i + 1], flow);
  }
  order(columns, [...lines.values()]);
  return { columns: columns.map((c) => c.boxes), lines: [...lines.values()], flows: flows.length };
}

// once leaves out the beginnings of connections that have ended since: the kernel tells of
// both.
function once(all) {
  const connection = (flow) => `${flow.protocol} ${flow.source.address} ${flow.frontend}`;
  const ended = new Set(all.filter((flow) => flow.origin === 'kernel' && !flow.open).map(connection));
  return all.filter((flow) => !flow.open || !ended.has(connection(flow)));
}

function tally(lines, from, to, flow) {
  const key = `${from.key}\n${to.key}`;
  const line = lines.get(key) ?? { from, to, count: 0, failed: 0, kernel: 0 };
  lines.set(key, line);
  line.count++;
  if (failed(flow)) line.failed++;
  if (flow.origin === 'kernel') line.kernel++;
}

// gather makes the boxes of a column. of says how flows are grouped, finely and, where
// that are too many, coarsely.
function gather(flows, of, rows) {
  let level = 0;
  let found = group(flows, of, level);
  if (found.size > rows) {
    level = 1;
    found = group(flows, of, level);
  }
  const boxes = [...found.values()].sort((a, b) => b.count - a.count || a.key.localeCompare(b.key));
  if (boxes.length > rows) {
    const rest = boxes.splice(rows - 1);
    const other = { key: boxes[0].key.split('\n')[0] + '\nothers', label: `${rest.length} others`, sub: '', count: 0, failed: 0, others: rest.length };
    for (const box of rest) {
      other.count += box.count;
      other.failed += box.failed;
      found.set(box.key, other);
    }
    boxes.push(other);
  }
  return { boxes, boxOf: (flow) => found.get(of(flow, level)?.key) };
}

function group(flows, of, level) {
  const found = new Map();
  for (const flow of flows) {
    const box = of(flow, level);
    if (!box) continue;
    if (!found.has(box.key)) found.set(box.key, { ...box, count: 0, failed: 0 });
    const sum = found.get(box.key);
    sum.count++;
    if (failed(flow)) sum.failed++;
  }
  return found;
}

// caller is the workload of the source: its pods do the same.
function caller(flow) {
  const p = flow.source;
  if (!p.pod) return { key: `caller\n${ip(p.address)}`, label: ip(p.address), sub: 'not a pod of this node', filter: { from: ip(p.address) } };
  const name = p.workload || p.pod;
  return { key: `caller\n${p.namespace}/${name}`, label: name, sub: p.namespace, filter: { from: `${p.namespace}/${name}` } };
}

function called(flow) {
  const s = flow.service;
  if (!s.name) return { key: `service\n${flow.frontend}`, label: flow.frontend, sub: 'no Service', filter: { to: flow.frontend } };
  return { key: `service\n${service(flow)}`, label: `${s.name} ${s.port}`, sub: s.namespace, filter: { to: service(flow) } };
}

// answered is the pod, or the workload where there are many pods; nothing if no backend
// was reached.
function answered(flow, level) {
  const p = flow.backend;
  if (!p.pod && !p.address) return null;
  if (level > 0 && p.pod) {
    const name = p.workload || p.pod;
    return { key: `backend\n${p.namespace}/${name}`, label: name, sub: `${p.namespace}, all its pods` };
  }
  const where = p.node ? ` on ${p.node}` : '';
  return { key: `backend\n${peer(p)}`, label: p.pod || p.address, sub: (p.namespace || '') + where, filter: { to: p.pod ? peer(p) : p.address } };
}

function ip(address) {
  return address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '') || 'unknown';
}

// order puts boxes near those that they have most lines to, so that few lines cross.
function order([callers, services, backends], lines) {
  place(services);
  for (const [column, end, other] of [[callers, 'from', 'to'], [backends, 'to', 'from']]) {
    const weights = new Map();
    for (const line of lines) {
      if (!column.boxes.includes(line[end])) continue;
      const w = weights.get(line[end]) ?? { sum: 0, count: 0 };
      w.sum += line[other].row * line.count;
      w.count += line.count;
      weights.set(line[end], w);
    }
    const mean = (box) => (box.others ? Infinity : weights.has(box) ? weights.get(box).sum / weights.get(box).count : 1e6);
    column.boxes.sort((a, b) => mean(a) - mean(b) || b.count - a.count);
    place(column);
  }
}

function place(column) {
  column.boxes.forEach((box, i) => {
    box.row = i;
  });
}
