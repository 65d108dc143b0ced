// SPDX-License-Identifier: Apache-2.0
// Makes elements. What others wrote gets into the page here alone, and only as text or as
// the value of an attribute: nothing in these files parses HTML.

export const byId = (id) => document.getElementById(id);

// el makes an HTML element. Attributes that begin with "on" are listeners; those that are
// null, undefined or false are left out. Children are nodes or text.
export function el(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// svg makes an element of SVG.
export function svg(tag, attributes, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

// set replaces what an element has.
export function set(element, ...children) {
  element.replaceChildren(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
}

// show hides or shows an element.
export function show(element, visible) {
  element.hidden = !visible;
}

// table fills a table: heads are texts, rows are elements.
export function table(into, caption, heads, rows) {
  set(into,
    el('caption', { class: 'unseen' }, caption),
    el('thead', null, el('tr', null, heads.map((h) => el('th', { scope: 'col' }, h)))),
    el('tbody', null, rows));
}

// row is a row of a table. Its first cell names it.
export function row(attributes, first, ...cells) {
  return el('tr', attributes, el('th', { scope: 'row' }, first), cells.map((c) => el('td', null, c)));
}

// link leads to a view with values in its form.
export function link(view, values, text, attributes) {
  return el('a', { href: hash(view, values), ...attributes }, text);
}

// hash is the address of a view within the page.
export function hash(view, values) {
  const query = new URLSearchParams(Object.entries(values ?? {}).filter(([, v]) => v)).toString();
  return '#' + view + (query ? '?' + query : '');
}
