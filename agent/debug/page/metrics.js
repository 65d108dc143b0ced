// SPDX-License-Identifier: Apache-2.0
// Makes rates of Service ports from two samples of the agent's metrics.

const families = new Set(['nodevoy_requests_total', 'nodevoy_request_duration_seconds_bucket', 'nodevoy_connections_total',
  'nodevoy_connections_open']);

// parse reads a sample from Prometheus' text format: what was counted, by
// namespace/service/port.
export function parse(text) {
  const ports = new Map();
  for (const line of text.split('\n')) {
    const brace = line.indexOf('{');
    const name = line.slice(0, brace);
    if (brace < 0 || !families.has(name)) continue;
    const end = line.lastIndexOf('}');
    const labels = parseLabels(line.slice(brace + 1, end));
    const value = Number(line.slice(end + 1).trim().split(' ')[0]);
    if (Number.isFinite(value)) add(counts(ports, labels), name, labels, value);
  }
  return ports;
}

function counts(ports, labels) {
  const key = `${labels.namespace}/${labels.service}/${labels.port}`;
  if (!ports.has(key)) ports.set(key, { requests: 0, errors: 0, buckets: new Map(), connections: 0, open: 0 });
  return ports.get(key);
}

function add(sum, name, labels, value) {
  switch (name) {
    case 'nodevoy_requests_total':
      sum.requests += value;
      // 0 is for no answer.
      if (labels.code === '0' || labels.code.startsWith('5')) sum.errors += value;
      break;
    case 'nodevoy_request_duration_seconds_bucket': {
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      sum.buckets.set(bound, (sum.buckets.get(bound) ?? 0) + value);
      break;
    }
    case 'nodevoy_connections_total':
      sum.connections += value;
      break;
    default:
      sum.open += value;
  }
}

function parseLabels(text) {
  const labels = { code: '' };
  for (const [, name, value] of text.matchAll(/([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
  }
  return labels;
}

// rates are what became of calls between two samples: requests and connections in a
// second, the share of errors, and the 99th percentile in milliseconds, null for none.
export function rates(before, after, seconds) {
  const out = new Map();
  for (const [key, now] of after) {
    const then = before.get(key) ?? { requests: 0, errors: 0, buckets: new Map(), connections: 0 };
    const requests = grown(then.requests, now.requests);
    const buckets = [...now.buckets].map(([bound, n]) => [bound, grown(then.buckets.get(bound) ?? 0, n)]).sort((a, b) => a[0] - b[0]);
    out.set(key, {
      requests: requests / seconds,
      errors: requests ? grown(then.errors, now.errors) / requests : 0,
      p99: quantile(0.99, buckets),
      connections: grown(then.connections, now.connections) / seconds,
      open: now.open,
    });
  }
  return out;
}

// grown is by how much a counter grew; it begins anew where Envoy does.
function grown(before, after) {
  return after < before ? after : after - before;
}

// quantile takes durations for evenly spread within a bucket, as Prometheus does.
function quantile(q, buckets) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!all) return null;
  let lower = 0;
  let below = 0;
  for (const [bound, n] of buckets) {
    if (n >= q * all) {
      const part = Number.isFinite(bound) && n > below ? (bound - lower) * (q * all - below) / (n - below) : 0;
      return (lower + part) * 1000;
    }
    lower = bound;
    below = n;
  }
  return lower * 1000;
}
