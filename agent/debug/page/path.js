// SPDX-License-Identifier: Apache-2.0
// What of an answer to why is on the way of a call: boxes in the order in which it passes
// them, and how it gets from each to the next. It is pure.

// stations are the boxes, and the links of the chain that each is about.
const stations = [
  { title: 'agent', links: ['agent'], quiet: true },
  { title: 'pod', links: ['pod'] },
  { title: 'Service', links: ['service', 'frontend'] },
  { title: 'rule', links: ['redirection', 'sets', 'rule'] },
  { title: 'listener', links: ['listener'] },
  { title: 'cluster', links: ['cluster', 'refused'] },
];

// shown is how many backends have boxes.
const shown = 8;

// path makes it: stations, backends, and past, the box that stands for the way around
// Envoy, which is null if calls don't take that. A state is ok, broken, unknown, left, or
// none for what calls don't reach, or nobody has asked about.
export function path(answer) {
  const by = new Map(answer.chain.map((link) => [link.name, link]));
  const boxes = stations.map((s) => station(s, by, answer)).filter((b) => !(b.quiet && (b.state === 'ok' || b.state === 'none')));
  let alive = true;
  let leaves = null;
  for (const box of boxes) {
    box.edge = alive ? box.state : 'none';
    if (box.edge === 'left') box.edge = 'ok';
    if (alive && (box.state === 'broken' || box.state === 'left')) {
      alive = false;
      leaves = box;
    }
  }
  const around = answer.verdict === 'untouched' || answer.verdict === 'bypassed';
  const past = around ? { title: 'past Envoy', subject: 'not redirected', state: 'left', from: leaves ?? boxes.at(-1) } : null;
  return { boxes, past, backends: backends(by, around, alive && boxes.at(-1).state !== 'none') };
}

function station(s, by, answer) {
  const links = s.links.map((name) => by.get(name)).filter(Boolean);
  return { title: s.title, quiet: s.quiet, subject: subject(s.title, links, answer), state: worst(links), text: links.map((l) => l.text).join('; ') };
}

function worst(links) {
  for (const state of ['broken', 'left', 'unknown']) {
    if (links.some((l) => l.state === state)) return state;
  }
  return links.length ? 'ok' : 'none';
}

function subject(title, links, answer) {
  switch (title) {
    case 'agent':
      return answer.node;
    case 'pod':
      return party(answer.from);
    case 'Service':
      return party(answer.to);
    case 'rule':
      return links.find((l) => l.rule)?.rule.chain ?? '';
    case 'listener':
      return links[0]?.text.split('/')[0].split(':')[0] ?? '';
    default:
      return answer.to.address ?? '';
  }
}

// party is an end of the call.
export function party(p) {
  if (p.name) return `${p.namespace}/${p.name}`;
  return p.address || p.asked;
}

// backends are boxes too. Calls reach those that are used, through Envoy or past it.
function backends(by, around, through) {
  const links = ['backends', 'envoy'].map((name) => by.get(name)).filter(Boolean);
  const all = links.flatMap((l) => l.backends ?? []);
  const edge = around ? 'left' : through ? 'ok' : 'none';
  if (all.length === 0) {
    const state = worst(links);
    const title = state === 'broken' ? 'no backend' : 'backends';
    return [{ title, subject: '', state, edge: state === 'broken' ? 'broken' : links.length ? edge : 'none', text: links.map((l) => l.text).join('; ') }];
  }
  // All of them left out is where a call breaks.
  const unused = links[0].state === 'broken' ? 'broken' : 'none';
  const boxes = all.slice(0, all.length > shown ? shown - 1 : shown).map((b) => {
    const state = backendState(b);
    return {
      title: b.pod || b.address, subject: [b.node, b.zone].filter(Boolean).join(', ') || b.address, state,
      edge: b.used ? (edge === 'ok' && state !== 'ok' ? state : edge) : unused,
      text: `${b.address}: ${b.why}${b.envoy ? `; in Envoy: ${b.envoy.ejected ? 'ejected' : b.envoy.healthy ? 'healthy' : (b.envoy.flags ?? []).join(', ')}` : ''}`,
    };
  });
  if (all.length > boxes.length) boxes.push({ title: `${all.length - boxes.length} more`, subject: 'in the list below', state: 'none', edge: 'none', text: '' });
  return boxes;
}

export function backendState(b) {
  if (!b.used) return 'none';
  return b.envoy && (b.envoy.ejected || !b.envoy.healthy) ? 'broken' : 'ok';
}
