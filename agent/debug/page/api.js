// SPDX-License-Identifier: Apache-2.0
// Asks the agent.

// patience is how long an answer may take.
const patience = 10_000;

// AgentError is an answer that is not a success. Its status is 0 if there was no answer.
export class AgentError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// url is that of a path below this page. Keys without a value are left out.
export function url(path, query) {
  const q = new URLSearchParams(Object.entries(query ?? {}).filter(([, v]) => v !== '' && v !== null && v !== undefined));
  const text = q.toString();
  return path + (text ? '?' + text : '');
}

async function ask(path, query, longer) {
  let response;
  try {
    response = await fetch(url(path, query), { signal: AbortSignal.timeout(longer ?? patience) });
  } catch (e) {
    throw new AgentError(0, e.name === 'TimeoutError' ? 'the agent takes too long to answer' : 'the agent does not answer');
  }
  if (response.ok) return response;
  let message = response.statusText;
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // Something between the agent and the browser answered, in words of its own.
  }
  throw new AgentError(response.status, message);
}

// get reads JSON.
export async function get(path, query, longer) {
  return (await ask(path, query, longer)).json();
}

// text reads text.
export async function text(path) {
  return (await ask(path)).text();
}

// list reads the first parts of a list; more says that there are others.
export async function list(path, query, parts = 3) {
  const items = [];
  let after = '';
  for (let part = 0; part < parts; part++) {
    const answer = await get(path, { ...query, limit: 1000, continue: after });
    items.push(...(answer.items ?? []));
    after = answer.continue ?? '';
    if (!after) break;
  }
  return { items, more: after !== '' };
}

// repeat works at once and then every so often, as long as wanted says so and the page is
// visible. It returns what works at once.
export function repeat(every, wanted, work) {
  let timer;
  let busy = false;
  const turn = async () => {
    clearTimeout(timer);
    if (busy) return;
    busy = true;
    try {
      if (wanted() && document.visibilityState === 'visible') await work();
    } finally {
      busy = false;
      timer = setTimeout(turn, every);
    }
  };
  document.addEventListener('visibilitychange', turn);
  turn();
  return turn;
}
