// How text gets onto the page. Whatever a container printed or somebody named is
// text, never markup, and cannot turn the text around it about.

const SVG = "http://www.w3.org/2000/svg";

// Characters that are not seen, or that change the direction of others; the two
// joiners that scripts and emoji need are left alone.
const unseen = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

// visible is the text with such characters spelled out.
export function visible(text) {
  return String(text).replace(unseen, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

// h makes an element. Values of attributes and children that are no elements
// are text.
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// s makes an element of a drawing.
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, visible(value));
  }
  for (const child of children.flat()) {
    if (child != null && child !== false) element.append(child instanceof Node ? child : visible(child));
  }
  return element;
}

// put sets an element's text, if it is another.
export function put(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

// set sets an attribute, if it is another; null takes it away.
export function set(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, visible(value));
}

export const find = (id) => document.getElementById(id);

// The marks of the healths: told apart by shape.
const shapes = {
  running: ["circle", { cx: 6, cy: 6, r: 4.5 }],
  waiting: ["path", { d: "M6 1a5 5 0 1 0 0 10A5 5 0 0 0 6 1Zm0 1.5v7a3.5 3.5 0 0 1 0-7Z" }],
  failing: ["path", { d: "M6 .8 11.6 11H.4Z" }],
  ending: ["path", { d: "M1.5 1.5h9v9h-9Zm1.5 1.5v6h6v-6Z" }],
  done: ["path", { d: "m1 6.6 1.3-1.5 2.4 2.2L9.6 2 11 3.4 4.9 10Z" }],
};

export function mark(health) {
  const [tag, attributes] = shapes[health] ?? shapes.waiting;
  return s("svg", { class: "shape", viewBox: "0 0 12 12", "aria-hidden": "true" }, s(tag, attributes));
}

// breakable is a word in pieces, so that a line may end between them:
// ImagePull BackOff.
const breakable = (word) => String(word).split(/(?<=[a-z])(?=[A-Z])/).flatMap((piece, i) => (i ? [document.createElement("wbr"), piece] : [piece]));

// state is a state in words with its mark before it.
export function state(health, word) {
  return h("span", { class: `state ${health in shapes ? health : "waiting"}` }, mark(health), h("span", null, breakable(word)));
}
