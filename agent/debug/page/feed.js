// SPDX-License-Identifier: Apache-2.0
// Follows the flows of the agent, and keeps the last ones. While it is open, Envoy sends
// the agent every flow, so it is closed when nobody has looked for a while.

import { get, url } from './api.js';

// kept is how many flows are kept, and first how many of the agent's are asked for.
const kept = 2000;
const first = 500;

export class Feed extends EventTarget {
  // patience is for how long nobody has to look until it is closed, in milliseconds.
  patience = 5 * 60_000;
  flows = [];
  // held are the flows that are shown while they are not to change.
  held = null;
  // state is closed, opening, open, broken (it tries again) or refused.
  state = 'closed';
  error = '';
  // received is how many came since it was opened, lost how many of them did not get
  // here, and counts what the agent's log has seen.
  received = 0;
  lost = 0;
  counts = null;
  filter = {};

  // open follows the flows that match a filter; those of another are forgotten.
  async open(filter) {
    this.close();
    if (JSON.stringify(filter) !== JSON.stringify(this.filter)) this.clear();
    this.filter = filter;
    this.to('opening', '');
    const turn = this.turn;
    try {
      // A stream that is refused doesn't say why.
      this.counts = await counts(filter);
    } catch (e) {
      if (turn === this.turn) this.failed(e);
      return;
    }
    if (turn !== this.turn) return;
    this.source = new EventSource(url('v1/flows', { ...filter, follow: 'true', last: first }));
    this.source.onopen = () => {
      this.clear();
      this.to('open', '');
    };
    this.source.onerror = () => this.failed({ message: this.state === 'open' ? 'the stream has ended' : 'the agent does not open the stream; maybe as many follow already as it serves' });
    this.source.addEventListener('flow', (e) => this.add(JSON.parse(e.data)));
    this.source.addEventListener('lost', (e) => {
      this.lost = JSON.parse(e.data).lost;
      this.changed();
    });
  }

  // turn tells what was begun before the last open or close from what belongs to it.
  turn = 0;

  close() {
    this.turn++;
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.to('closed', '');
  }

  // failed tries again in a while, unless the question is wrong. An agent that has started
  // anew counts its flows anew: what it has is asked for from the beginning.
  failed({ status, message }) {
    this.source?.close();
    this.source = null;
    this.to(status === 400 ? 'refused' : 'broken', message);
    if (this.state === 'broken') this.retry = setTimeout(() => this.open(this.filter), 2000);
  }

  add(flow) {
    this.received++;
    this.flows.push(flow);
    if (this.flows.length >= 2 * kept) this.flows = this.flows.slice(-kept);
    this.changed();
  }

  clear() {
    Object.assign(this, { flows: [], received: 0, lost: 0 });
  }

  // newest are the last flows, the oldest first: of now, or of when they were held.
  newest(n = kept) {
    return (this.held ?? this.flows).slice(-Math.min(n, kept));
  }

  // hold keeps what is shown from changing, until it is told to go on.
  hold(does) {
    this.held = does ? [...this.flows] : null;
    this.changed();
  }

  to(state, error) {
    this.state = state;
    this.error = error;
    this.changed();
  }

  // changed tells those who show it, not for each flow of a burst.
  changed() {
    this.waiting ??= setTimeout(() => {
      this.waiting = null;
      this.dispatchEvent(new Event('change'));
    }, 200);
  }

  // recount asks what the agent's log has seen.
  async recount() {
    if (this.state !== 'open') return;
    try {
      this.counts = await counts(this.filter);
      this.changed();
    } catch {
      // The stream says what is wrong.
    }
  }

  // look says whether somebody looks.
  look(does) {
    clearTimeout(this.idle);
    if (!does) this.idle = setTimeout(() => this.close(), this.patience);
  }
}

async function counts(filter) {
  return get('v1/flows', { ...filter, last: '0' });
}
