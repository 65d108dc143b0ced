// SPDX-License-Identifier: Apache-2.0
// The form that asks why.

import { get } from './api.js';
import { answer } from './answer.js';
import { byId, el, hash, link, set } from './dom.js';

let asked = '';

// begin makes the form change the address, from which it is then asked.
export function begin() {
  byId('why-form').addEventListener('submit', (e) => {
    e.preventDefault();
    const to = hash('why', Object.fromEntries(new FormData(byId('why-form'))));
    asked = '';
    if (location.hash === to) dispatchEvent(new Event('hashchange'));
    else location.hash = to;
  });
}

// why asks what the address of the page says, if that is new.
export async function why(values) {
  const question = Object.fromEntries(['from', 'to', 'flow', 'live'].map((k) => [k, (values[k] ?? '').trim()]).filter(([, v]) => v));
  const form = byId('why-form').elements;
  if (question.from) form.from.value = question.from;
  if (question.to) form.to.value = question.to;
  form.live.checked = question.live === 'true';
  const out = byId('why-answer');
  if (!question.flow && !(question.from && question.to)) {
    asked = '';
    set(out, el('p', { class: 'empty' }, 'Say who calls: a pod as namespace/name, a workload or an address; and what: service:port, namespace/service:port, or an address with a port. Or take a flow from ', link('flows', {}, 'the list'), '.'));
    return;
  }
  const now = JSON.stringify(question);
  if (now === asked) return;
  asked = now;
  set(out, el('p', { class: 'empty' }, 'Asking…'));
  let said;
  try {
    const a = await get('v1/why', question, 30_000);
    if (question.flow) [form.from.value, form.to.value] = [a.from.asked, a.to.asked];
    said = answer(a);
  } catch (e) {
    const none = e.status === 404 && e.message.includes('/v1/why');
    said = [el('p', { class: 'bad' }, none ? 'This agent does not answer why.' : `No answer: ${e.message}.`)];
  }
  if (asked === now) set(out, said);
}
