// SPDX-License-Identifier: Apache-2.0
// Draws a small chart of the last values.

import { el, svg } from './dom.js';

const width = 96;
const height = 24;

// spark is a chart with its last value beside it. values may have nulls, where there is
// nothing to show; name says what they are, and write writes one.
export function spark(name, values, write, most, kind) {
  const known = values.filter((v) => v !== null);
  const last = values.at(-1) ?? null;
  const highest = Math.max(...known, 0);
  const top = highest || 1;
  const x = (i) => width - (values.length - 1 - i) * (width / (most - 1));
  const y = (v) => height - 2 - (v / top) * (height - 4);
  const parts = [];
  let open = false;
  values.forEach((v, i) => {
    if (v === null) open = false;
    else {
      parts.push(`${open ? 'L' : 'M'}${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
      open = true;
    }
  });
  const now = last === null ? '–' : write(last);
  const label = known.length ? `${name}: ${last === null ? 'none' : now} now, at most ${write(highest)} in this chart` : `${name}: nothing yet`;
  return el('span', { class: 'spark ' + (kind && last ? kind : '') },
    svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label },
      svg('title', null, label),
      svg('path', { class: 'ground', d: `M0 ${height - 1.5}H${width}` }),
      parts.length > 0 && svg('path', { class: 'line', d: parts.join('') }),
      last !== null && svg('circle', { class: 'dot', cx: width - 2, cy: y(last), r: 2 })),
    el('span', { class: 'now', 'aria-hidden': 'true' }, now));
}
