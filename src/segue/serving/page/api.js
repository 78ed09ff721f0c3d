// The public API, and the token of this tab.

import { byId } from "./dom.js";

const TOKEN = "segue-token";

/** An answer that is an error: the status, and the message of the service. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** JSON of GET. */
export const get = (path) => ask("GET", path);

/** JSON of POST. */
export const post = (path, body) => ask("POST", path, body);

/** Text of GET. */
export const text = (path) => ask("GET", path, undefined, true);

/** Path with parameters; those without a value are left out, and lists are repeated. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  return query.size ? `${path}?${query}` : path;
}

async function ask(method, path, body, asText = false) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem(0, "The service cannot be reached.");
  }
  if (answer.ok) return asText ? answer.text() : answer.json();
  let detail = `The service answered ${answer.status}.`;
  try {
    detail = (await answer.json()).detail ?? detail;
  } catch {
    // not JSON: the status must do
  }
  if (answer.status === 401) askForToken(Boolean(token));
  throw new Problem(answer.status, detail);
}

function askForToken(refused) {
  byId("access").hidden = false;
  byId("access-text").textContent = refused
    ? "The service does not know this token. Use another one."
    : "It needs the right to read. The token stays in this tab, and is gone when you close it.";
}

/** Use the token that is typed from now on; `begin` is called after each one. */
export function tokenForm(begin) {
  byId("access-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, byId("token").value.trim());
    byId("token").value = "";
    byId("access").hidden = true;
    begin();
  });
}
