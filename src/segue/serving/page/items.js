// Items: titles, and the search for them.

import { get, withQuery } from "./api.js";
import { many } from "./dom.js";

const known = new Map();
const PART = 50;

/** Load the entries of items (ids) that are not known yet. */
export async function loadItems(ids) {
  const missing = [...new Set(ids.map(String))].filter((id) => id.length <= 500 && !known.has(id));
  for (let first = 0; first < missing.length; first += PART) {
    const part = missing.slice(first, first + PART);
    for (const id of part) known.set(id, { item: id });
    const answer = await get(withQuery("/v1/items", { id: part }));
    answer.items.forEach(keep);
  }
}

function keep(entry) {
  known.set(String(entry.item), entry);
}

/** Forget all entries: another token or model may know others. */
export const forgetItems = () => known.clear();

/** Name of an item for readers: the title, or the id. */
export const nameOf = (id) => known.get(String(id))?.title ?? String(id);

/** Entry of an item. */
export const entryOf = (id) => known.get(String(id)) ?? { item: id };

/** True if the name of an item is not its id. */
export const hasTitle = (id) => Boolean(known.get(String(id))?.title);

/** Options of a search box. */
export async function searchItems(query) {
  const answer = await get(withQuery("/v1/items", { query, limit: 20 }));
  answer.items.forEach(keep);
  return answer.items.map((entry) => ({
    value: entry.item,
    label: entry.title ?? String(entry.item),
    detail: [entry.title ? String(entry.item) : null, `${many(entry.interactions, "interaction")}`].filter(Boolean).join(" · "),
  }));
}
