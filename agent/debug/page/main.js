// SPDX-License-Identifier: Apache-2.0
// Begins: which view is shown is the page's address, #view?key=value.

import { get, repeat } from './api.js';
import { detail } from './detail.js';
import { byId, set, show } from './dom.js';
import { Feed } from './feed.js';
import { Filters, filterOf } from './filters.js';
import { FlowTable } from './flowtable.js';
import { clock } from './format.js';
import { dialogs, keys } from './keys.js';
import { render as renderMap } from './map.js';
import { cards } from './node.js';
import { pods } from './pods.js';
import { known, services } from './services.js';
import { begin, why } from './why.js';

const views = ['node', 'flows', 'map', 'why'];
const feed = new Feed();
const filters = new Filters(feed);
const flows = new FlowTable(detail);
let view = '';
let asOf = '';
let offered = -Infinity;

function address() {
  const [name, query] = location.hash.slice(1).split('?');
  return { name: views.includes(name) ? name : 'node', values: Object.fromEntries(new URLSearchParams(query ?? '')) };
}

// navigate shows the view that the address says.
function navigate() {
  const { name, values } = address();
  const moved = view !== name;
  if (moved) for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  view = name;
  for (const v of views) show(byId('view-' + v), v === name);
  for (const a of document.querySelectorAll('nav a')) {
    if (a.dataset.view === name) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  title();
  filters.show(following());
  if (following()) follow(filterOf(values));
  else feed.look(false);
  if (name === 'why') why(values);
  if (moved && name === 'node') refresh();
  if (moved && name !== 'node') offer();
}

function title() {
  document.title = [view, 'nodevoy', byId('node-name').textContent].filter(Boolean).join(' · ');
}

// offer asks for the names that fields offer, if that is long ago.
function offer() {
  if (performance.now() - offered < 60_000) return;
  offered = performance.now();
  known();
}

const following = () => view === 'flows' || view === 'map';

function follow(filter) {
  filters.fill(filter);
  feed.look(document.visibilityState === 'visible');
  const other = JSON.stringify(filter) !== JSON.stringify(feed.filter);
  if (other && filters.paused) filters.pause();
  if (other || feed.state === 'closed' || feed.state === 'refused') feed.open(filter);
  else draw();
}

function draw() {
  if (view === 'flows') flows.render(feed);
  if (view === 'map') renderMap(feed);
}

// summary refreshes what every view shows.
async function summary() {
  try {
    const s = await get('v1/summary');
    asOf = `As of ${clock(s.at)}.`;
    set(byId('node-name'), s.node);
    set(byId('phase'), s.phase);
    title();
    byId('phase').className = 'badge ' + (s.phase === 'redirecting' && !s.notReady && !s.stuck ? 'ok' : s.phase === 'starting' ? 'off' : 'bad');
    alarm(s.stuck ? `The agent is stuck, and what is shown may be old: ${s.stuck}.` : '');
    if (view === 'node') await cards(s);
  } catch (e) {
    byId('phase').className = 'badge bad';
    set(byId('phase'), 'no answer');
    alarm(`No news of the node: ${e.message}. ${asOf ? `What is shown is old. ${asOf}` : 'Is the agent running, and does what forwards this page go on?'}`);
  }
  set(byId('as-of'), asOf);
}

// alarm says what is wrong with all that is shown. It is read aloud when it changes.
function alarm(text) {
  if (byId('alert').textContent !== text) byId('alert').textContent = text;
  show(byId('alert'), text !== '');
}

const here = () => view === 'node';
dialogs();
begin();
set(byId('origin'), `${location.host}, the debug endpoint of one node's agent.`);
byId('skip').addEventListener('click', (e) => {
  e.preventDefault();
  byId('content').focus();
});
keys({
  ...Object.fromEntries(views.map((v, i) => [String(i + 1), () => { location.hash = '#' + v; }])),
  '/': () => byId({ why: 'why-form', node: 'view-node' }[view] ?? 'filters').querySelector('input, a, [tabindex]')?.focus(),
  p: () => following() && filters.pause(),
  j: () => view === 'flows' && flows.step(1),
  k: () => view === 'flows' && flows.step(-1),
  '?': () => byId('help').showModal(),
});
addEventListener('hashchange', navigate);
feed.addEventListener('change', draw);
document.addEventListener('visibilitychange', () => {
  if (!following()) return;
  feed.look(document.visibilityState === 'visible');
  if (document.visibilityState === 'visible' && feed.state === 'closed') feed.open(feed.filter);
});
addEventListener('resize', () => view === 'map' && draw());

const news = repeat(5000, () => true, summary);
const details = [repeat(5000, here, services), repeat(10_000, here, pods)];
repeat(5000, following, () => feed.recount());
function refresh() {
  news();
  for (const turn of details) turn();
}
navigate();
