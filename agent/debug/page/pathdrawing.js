// SPDX-License-Identifier: Apache-2.0
// Draws the way of a call: side by side where there is room, else from top to bottom.

import { svg } from './dom.js';
import { short } from './format.js';

const height = 46;
// words and signs are for states: colour alone doesn't tell them apart.
export const words = { ok: 'holds', broken: 'breaks here', unknown: 'not known', left: 'ends here', none: 'not reached' };
export const signs = { ok: '✓', broken: '✕', unknown: '?', left: '↷', none: '·' };

// draw returns a picture of a path, for a width in pixels.
export function draw(path, width, label) {
  const size = width >= 720 ? wide(path, width) : narrow(path, width);
  return svg('svg', { class: 'path', viewBox: `0 0 ${width} ${size.height}`, width, height: size.height, role: 'img', 'aria-label': label },
    edges(path, size.down), [...path.boxes, ...path.backends, path.past].filter(Boolean).map(box));
}

function wide(path, width) {
  const columns = path.boxes.length + 1;
  const gap = 30;
  const w = (width - 4 - gap * (columns - 1)) / columns;
  const last = path.backends.length * (height + 8) - 8;
  const y = Math.max((last - height) / 2, 0) + 2;
  path.boxes.forEach((b, i) => Object.assign(b, { x: 2 + i * (w + gap), y, w }));
  path.backends.forEach((b, i) => Object.assign(b, { x: 2 + (columns - 1) * (w + gap), y: y + height / 2 - last / 2 + i * (height + 8), w }));
  let bottom = Math.max(y + height, y + height / 2 + last / 2);
  if (path.past) {
    // Below the last of the boxes that calls don't reach.
    const most = Math.max(w, 130);
    Object.assign(path.past, { x: path.backends[0].x - gap - most, y: y + height + 34, w: most });
    bottom = Math.max(bottom, path.past.y + height);
  }
  return { height: bottom + 2, down: false };
}

function narrow(path, width) {
  const gap = 22;
  const w = path.past ? Math.floor(width * 0.56) : width - 44;
  let y = 2;
  for (const b of path.boxes) {
    Object.assign(b, { x: 2, y, w });
    y += height + gap;
  }
  for (const b of path.backends) {
    Object.assign(b, { x: 40, y, w: width - 44 });
    y += height + 8;
  }
  if (path.past) {
    const from = path.past.from.y;
    Object.assign(path.past, { x: w + 22, y: (from + path.backends[0].y) / 2, w: width - w - 24 });
  }
  return { height: y, down: true };
}

function edges(path, down) {
  const all = [];
  path.boxes.forEach((b, i) => i > 0 && all.push(edge(path.boxes[i - 1], b, b.edge, down)));
  const from = path.past ?? path.boxes.at(-1);
  for (const b of path.backends) {
    if (path.past) {
      all.push(edge(path.boxes.at(-1), b, 'none', down, true));
      if (b.edge !== 'none') all.push(down ? drop(path.past, b) : edge(path.past, b, 'left', false));
    } else all.push(edge(from, b, b.edge, down, true));
  }
  if (path.past) all.push(down ? side(path.past.from, path.past) : hang(path.past.from, path.past));
  return all;
}

// edge is a line from one box to the next. In a column, backends are entered from the left.
function edge(a, b, state, down, fan) {
  const [x1, y1] = down ? [a.x + 18, a.y + height] : [a.x + a.w, a.y + height / 2];
  const [x2, y2] = down && !fan ? [b.x + 18, b.y] : [b.x, b.y + height / 2];
  const curve = down ? (fan ? `M${x1} ${y1}V${y2 - 8}Q${x1} ${y2} ${x1 + 8} ${y2}H${x2}` : `M${x1} ${y1}V${y2}`)
    : `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}`;
  const parts = [svg('path', { class: 'edge ' + state, d: curve })];
  if (state === 'broken') parts.push(svg('text', { class: 'cut', x: down ? x1 : (x1 + x2) / 2, y: (down && fan ? y2 : (y1 + y2) / 2) + 5 }, '✕'));
  return svg('g', null, parts);
}

// hang leads from below a box to the one on the way past, side from beside it, and drop on
// to what answers.
function hang(a, b) {
  const x = a.x + a.w / 2;
  const y = b.y + height / 2;
  return svg('path', { class: 'edge left', d: `M${x} ${a.y + height}V${y - 10}Q${x} ${y} ${x + 10} ${y}H${b.x}` });
}

function side(a, b) {
  const x = b.x + b.w / 2;
  const y = a.y + height / 2;
  return svg('path', { class: 'edge left', d: `M${a.x + a.w} ${y}H${x - 10}Q${x} ${y} ${x} ${y + 10}V${b.y}` });
}

function drop(a, b) {
  const x = a.x + a.w / 2;
  return svg('path', { class: 'edge left', d: `M${x} ${a.y + height}V${b.y}` });
}

function box(b) {
  const letters = (size) => Math.max(4, Math.floor((b.w - 14) / size));
  return svg('g', { class: 'station ' + b.state },
    svg('title', null, [`${b.title}: ${words[b.state]}`, b.text].filter(Boolean).join('. ')),
    svg('rect', { x: b.x, y: b.y, width: b.w, height, rx: 6 }),
    svg('text', { class: 'sign', x: b.x + b.w - 8, y: b.y + 18 }, signs[b.state]),
    svg('text', { x: b.x + 8, y: b.y + 18 }, short(b.title, letters(8) - 2)),
    svg('text', { class: 'sub', x: b.x + 8, y: b.y + 36 }, short(b.subject || words[b.state], letters(6.4))));
}
