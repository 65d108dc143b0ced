// SPDX-License-Identifier: Apache-2.0
// Writes values for people.

export function clock(time) {
  const d = new Date(time);
  const two = (n) => String(n).padStart(2, '0');
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`;
}

// ago is how long before now a time was, by the clock of the agent.
export function ago(time, now) {
  return time ? span((new Date(now) - new Date(time)) / 1000) + ' ago' : 'never';
}

// span is a number of seconds in the two largest units.
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function millis(ms) {
  if (ms === undefined || ms === null) return '–';
  if (ms >= 10_000) return span(ms / 1000);
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms >= 100 ? Math.round(ms) : ms >= 1 ? Number(ms.toFixed(1)) : Number(ms.toFixed(2))} ms`;
}

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export function count(n) {
  return n.toLocaleString('en');
}

// many is a number with its noun.
export function many(n, one, more = one + 's') {
  return `${count(n)} ${n === 1 ? one : more}`;
}

export function rate(perSecond) {
  if (perSecond === 0) return '0/s';
  return perSecond < 10 ? `${Number(perSecond.toPrecision(2))}/s` : `${count(Math.round(perSecond))}/s`;
}

export function percent(share) {
  if (share === 0) return '0 %';
  return share < 0.001 ? '< 0.1 %' : `${Number((share * 100).toFixed(share < 0.1 ? 1 : 0))} %`;
}

// short leaves out the middle of a text that has more than most characters: names of
// pods differ at their ends.
export function short(text, most) {
  if (text.length <= most) return text;
  const head = Math.ceil((most - 1) * 0.6);
  return text.slice(0, head) + '…' + text.slice(text.length - (most - 1 - head));
}
