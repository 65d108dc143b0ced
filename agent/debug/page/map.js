// SPDX-License-Identifier: Apache-2.0
// Draws the graph of who calls whom.

import { byId, el, hash, row, set, show, svg, table } from './dom.js';
import { emptiness, filterOf } from './filters.js';
import { count, many, percent, short } from './format.js';
import { graph } from './graph.js';

// rows is how many boxes a column has at most. Boxes have a fixed height, and columns
// share the width, of which there is a least.
const rows = 20;
const boxHeight = 38;
const rowHeight = 48;
const leastWidth = 600;

// render draws the flows that are kept.
export function render(feed) {
  const g = graph(feed.newest(), rows);
  const none = g.flows === 0;
  show(byId('map'), !none);
  set(byId('map-empty'), none ? emptiness(feed) : '');
  const focus = document.activeElement?.closest('#map a')?.dataset.key;
  set(byId('map'), none ? [] : drawing(g, Math.max(byId('view-map').clientWidth - 2, leastWidth), feed.filter));
  if (focus) [...byId('map').querySelectorAll('a')].find((a) => a.dataset.key === focus)?.focus();
  asTable(g);
}

function drawing(g, width, filter) {
  const most = Math.max(...g.columns.map((c) => c.length));
  const height = most * rowHeight + 34;
  const gap = Math.max(60, width * 0.14);
  const boxWidth = (width - 2 * gap - 4) / 3;
  g.columns.forEach((boxes, c) => {
    const top = 30 + ((most - boxes.length) * rowHeight) / 2;
    for (const box of boxes) Object.assign(box, { x: 2 + c * (boxWidth + gap), y: top + box.row * rowHeight, width: boxWidth });
  });
  const heads = ['Callers', 'Services', 'Answered by'].map((t, c) => svg('text', { class: 'head', x: 2 + c * (boxWidth + gap), y: 16 }, t));
  const label = `${g.columns[0].length} callers, ${g.columns[1].length} Services, ${g.columns[2].length} that answered, in the last ${many(g.flows, 'flow')}`;
  const root = svg('svg', { class: 'map', viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': label },
    heads, lines(g), g.columns.flat().map((box) => boxOf(box, filter)));
  return [root];
}

// lines are drawn apart where several meet a box, in the order of their other ends.
function lines(g) {
  const most = Math.max(...g.lines.map((l) => l.count), 1);
  const ports = new Map();
  for (const [end, other] of [['from', 'to'], ['to', 'from']]) {
    const by = Map.groupBy(g.lines, (l) => l[end]);
    for (const [box, all] of by) {
      all.sort((a, b) => a[other].y - b[other].y);
      all.forEach((l, i) => ports.set(l, { ...ports.get(l), [end]: box.y + (boxHeight * (i + 1)) / (all.length + 1) }));
    }
  }
  return [...g.lines].sort((a, b) => a.failed - b.failed).map((l) => {
    const { from: y1, to: y2 } = ports.get(l);
    const x1 = l.from.x + l.from.width;
    const x2 = l.to.x;
    const mid = (x1 + x2) / 2;
    const kind = (l.failed ? ' failed' : '') + (l.kernel === l.count ? ' kernel' : '') + (l.from.others || l.to.others ? ' rest' : '');
    return svg('path', {
      class: 'flow' + kind, d: `M${x1} ${y1}C${mid} ${y1} ${mid} ${y2} ${x2} ${y2}`, 'stroke-width': (1.5 + 8 * Math.sqrt(l.count / most)).toFixed(1),
      'data-from': l.from.key, 'data-to': l.to.key,
    }, svg('title', null, say(l)));
  });
}

function say(l) {
  return `${l.from.label} → ${l.to.label}: ${many(l.count, 'flow')}${l.failed ? `, ${count(l.failed)} failed` : ''}${l.kernel ? `, ${count(l.kernel)} not redirected` : ''}`;
}

function boxOf(box, filter) {
  const letters = Math.floor((box.width - 16) / 7);
  const text = `${box.label}${box.sub ? `, ${box.sub}` : ''}: ${many(box.count, 'flow')}${box.failed ? `, ${count(box.failed)} failed` : ''}`;
  const inside = [
    svg('title', null, text),
    svg('rect', { x: box.x, y: box.y, width: box.width, height: boxHeight, rx: 6 }),
    svg('text', { x: box.x + 8, y: box.y + 16 }, short(box.label, letters)),
    svg('text', { class: 'sub', x: box.x + 8, y: box.y + 31 },
      short(`${count(box.count)}${box.failed ? `, ${percent(box.failed / box.count)} failed` : ''}${box.sub ? ` · ${box.sub}` : ''}`, Math.floor((box.width - 16) / 6))),
  ];
  const attributes = { class: 'box' + (box.failed ? ' failed' : ''), 'data-key': box.key, 'aria-label': text };
  if (!box.filter) return svg('g', attributes, inside);
  const a = svg('a', { ...attributes, href: hash('map', filterOf({ ...filter, ...box.filter })) }, inside);
  for (const [event, on] of [['mouseenter', true], ['focus', true], ['mouseleave', false], ['blur', false]]) a.addEventListener(event, () => single(a, on));
  return a;
}

// single shows the lines of one box alone, while somebody points at it.
function single(a, on) {
  const root = a.closest('svg');
  root.classList.toggle('single', on);
  for (const line of root.querySelectorAll('.flow')) {
    line.classList.toggle('its', on && (line.dataset.from === a.dataset.key || line.dataset.to === a.dataset.key));
  }
}

function asTable(g) {
  const all = [...g.lines].sort((a, b) => b.count - a.count);
  table(byId('map-table'), 'Who calls whom', ['From', 'To', 'Flows', 'Failed', 'Not redirected'],
    all.map((l) => row(null, name(l.from), name(l.to), count(l.count), el('span', { class: l.failed ? 'bad' : '' }, count(l.failed)), count(l.kernel))));
}

function name(box) {
  return box.sub ? `${box.label} (${box.sub})` : box.label;
}
