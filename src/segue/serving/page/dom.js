// Elements from text: nothing here, and nothing on this page, reads a text as markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/** A new element: attributes, listeners (`onclick`), and children as elements or texts; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** A new element of a drawing. */
export function s(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Say a sentence to screen readers. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Show a note, or hide it when there is no text. */
export function note(element, text) {
  element.hidden = !text;
  element.textContent = text ?? "";
}

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A whole number for readers. */
export const whole = (value) => integers.format(value);

/** "1 item", "2 items". */
export const many = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** A score with two to four digits that matter. */
export function score(value) {
  const size = Math.abs(value);
  if (size >= 1000) return value.toPrecision(4);
  if (size > 0 && size < 0.001) return size < 0.0001 ? value.toExponential(0) : value.toPrecision(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

const days = new Intl.DateTimeFormat("en", { year: "numeric", month: "short", day: "numeric", timeZone: "UTC" });
const minutes = new Intl.DateTimeFormat("en", {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "UTC",
});

/** A time, in seconds since 1970, for readers, in UTC; small numbers are steps, not dates. */
export function moment(seconds) {
  if (seconds < 1e7) return `time ${whole(seconds)}`;
  const date = new Date(seconds * 1000);
  return (seconds % 86400 === 0 ? days : minutes).format(date);
}
