// SPDX-License-Identifier: Apache-2.0
// The form that filters flows, and the line that says how the stream goes. The filter is
// part of the page's address, so that it can be kept and passed on.

import { byId, el, hash, set, show } from './dom.js';
import { count, many } from './format.js';

const keys = ['namespace', 'from', 'to', 'status', 'protocol', 'origin', 'slower', 'failed'];

// filterOf reads a filter from the values of an address.
export function filterOf(values) {
  return Object.fromEntries(keys.map((k) => [k, (values[k] ?? '').trim()]).filter(([, v]) => v));
}

// Filters is the form. It changes the address, and whoever follows that fills it.
export class Filters {
  constructor(feed) {
    this.feed = feed;
    this.paused = false;
    this.form = byId('filters');
    this.form.addEventListener('submit', (e) => {
      e.preventDefault();
      this.go();
    });
    this.form.addEventListener('change', () => this.go());
    this.form.addEventListener('reset', () => setTimeout(() => this.go()));
    byId('pause').addEventListener('click', () => this.pause());
    feed.addEventListener('change', () => this.say());
  }

  go() {
    const view = location.hash.startsWith('#map') ? 'map' : 'flows';
    const values = filterOf(Object.fromEntries(new FormData(this.form)));
    // Services are offered with their port's number, and the filter has its own way.
    if (values.to && /^[^[\]]*\/[^:]*:\d+$/.test(values.to)) values.to = values.to.split(':')[0];
    location.hash = hash(view, values);
  }

  fill(filter) {
    for (const key of keys) {
      const field = this.form.elements[key];
      if (field.type === 'checkbox') field.checked = filter[key] === 'true';
      else field.value = filter[key] ?? '';
    }
  }

  // pause stops what is shown from changing, and goes on.
  pause() {
    this.paused = !this.paused;
    this.received = this.feed.received;
    const button = byId('pause');
    button.setAttribute('aria-pressed', String(this.paused));
    button.textContent = this.paused ? 'Go on' : 'Pause';
    this.say();
    this.feed.hold(this.paused);
  }

  // say writes how the stream goes, and what is missing.
  say() {
    const f = this.feed;
    const parts = [{
      closed: 'Not followed: nobody has looked for a while.',
      opening: 'Asking the agent…',
      open: this.paused ? 'Paused.' : 'Following.',
      broken: `Not followed: ${f.error}. Trying again.`,
      refused: `This filter can't be used: ${f.error}.`,
    }[f.state]];
    if (this.paused && f.received > this.received) parts.push(`${many(f.received - this.received, 'flow')} since then.`);
    if (f.lost > 0) parts.push(`${many(f.lost, 'flow')} lost on the way here: there were too many.`);
    const left = Object.entries(f.counts?.lost ?? {}).filter(([why, n]) => n > 0 && why !== 'follower');
    if (left.length > 0) parts.push(`Left out since the agent began: ${left.map(([why, n]) => `${count(n)} (${why})`).join(', ')}.`);
    set(byId('feed-state'), el('span', { class: 'state ' + { open: 'ok', broken: 'bad', refused: 'bad' }[f.state] }, parts[0]), ' ', parts.slice(1).join(' '));
  }

  show(visible) {
    show(this.form, visible);
    show(byId('feed-state'), visible);
  }
}

// emptiness says what to do when there is nothing to show.
export function emptiness(feed) {
  if (feed.state === 'refused' || feed.state === 'opening') return '';
  if (Object.keys(feed.filter).length > 0) return 'No flow matches the filter yet. Make such a call or wait, or clear the filter.';
  return 'No flow yet: make a call from a pod of this node, or wait. While this page follows, the agent is told of every request.';
}
