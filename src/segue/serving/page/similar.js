// The dialog of similar items.

import { post } from "./api.js";
import { announce, byId, h, many, note, score } from "./dom.js";
import { entryOf, hasTitle, loadItems, nameOf } from "./items.js";
import { atMost } from "./models.js";

let turn = 0;

/** Show the items that are similar to one. */
export async function openSimilar(item) {
  const own = ++turn;
  const dialog = byId("similar");
  note(byId("similar-note"), null);
  byId("similar-items").replaceChildren();
  byId("similar-facts").textContent = "";
  byId("similar-title").textContent = nameOf(item);
  if (!dialog.open) dialog.showModal();
  try {
    const answer = await post("/v1/similar", { items: [item], k: atMost(10) });
    await loadItems([item, ...answer.items.map((entry) => entry.similar)]);
    if (own !== turn) return;
    const facts = entryOf(item);
    byId("similar-title").textContent = nameOf(item);
    byId("similar-facts").textContent = [
      hasTitle(item) ? String(item) : null,
      facts.interactions === undefined ? null : many(facts.interactions, "interaction"),
      `by the item vectors of ${answer.model}`,
    ].filter(Boolean).join(" · ");
    byId("similar-items").replaceChildren(...answer.items.map(card));
    announce(`${many(answer.items.length, "similar item")}.`);
  } catch (problem) {
    if (own === turn) note(byId("similar-note"), problem.message);
  }
}

function card(entry) {
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", {}));
  bar.firstChild.style.width = `${Math.max(0, Math.min(1, entry.score)) * 100}%`;
  return h(
    "li",
    { class: "card neighbour" },
    h("span", { class: "rank" }, String(entry.rank)),
    h(
      "button",
      { type: "button", class: "pick", onclick: () => openSimilar(entry.similar) },
      h("span", { class: "name" }, nameOf(entry.similar)),
      hasTitle(entry.similar) ? h("span", { class: "detail" }, String(entry.similar)) : null,
    ),
    bar,
    h("span", { class: "value" }, h("span", { class: "unseen" }, "Similarity "), score(entry.score)),
  );
}

/** Listen to the buttons of the dialog. */
export function startSimilar() {
  const dialog = byId("similar");
  byId("similar-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => turn++);
}
