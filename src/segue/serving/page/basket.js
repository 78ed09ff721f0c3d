// The view of a basket that is filled step by step.

import { get, post, withQuery } from "./api.js";
import { combobox } from "./combobox.js";
import { announce, byId, h, many, note } from "./dom.js";
import { Flow, isItem, naming, reasonName, sign } from "./flow.js";
import { loadItems, nameOf, searchItems } from "./items.js";
import { atMost, variantName } from "./models.js";
import { currentUser } from "./people.js";
import { openSimilar } from "./similar.js";

const NEXT = 8;
const STEPS = 5;

let flow;
let box;
let basket = [];
let turn = 0;

/** Build the view once. */
export function startBasket() {
  box = combobox(byId("basket-field"), {
    label: "Put into the basket", placeholder: "Search an item", clear: true, search: searchItems, choose: put,
  });
  flow = new Flow(byId("basket-flow"), { take: "Put into the basket", onTake: put, name: nameHere });
  byId("basket-person").addEventListener("change", () => openBasket());
}

function put(item) {
  if (basket.some((one) => String(one) === String(item))) return announce(`${nameOf(item)} is in the basket already.`);
  basket.push(item);
  openBasket(`${nameOf(item)} is in the basket.`);
}

function takeOut(row) {
  const [item] = basket.splice(row, 1);
  openBasket(`${nameOf(item)} is out of the basket.`);
  box.focus();
}

/** Show the basket, and what could come next. */
export async function openBasket(said = null) {
  const own = ++turn;
  const user = currentUser();
  byId("basket-person-field").hidden = user === null;
  byId("basket-person-field").querySelector("span").textContent = `with the history of ${user}`;
  note(byId("basket-note"), null);
  try {
    await loadItems(basket);
    if (own !== turn) return;
    drawBasket();
    if (!basket.length) {
      flow.show([], () => null);
      byId("steps-panel").hidden = true;
      const answer = await get(withQuery("/v1/items", { limit: 6 }));
      if (own !== turn) return;
      await loadItems(answer.items.map((entry) => entry.item));
      byId("basket-start").replaceChildren(
        h("ul", { class: "chips", "aria-label": "Items that many take" }, answer.items.map((entry) =>
          h("li", {}, h("button", { type: "button", class: "chip", onclick: () => put(entry.item) },
            h("span", { class: "name" }, nameOf(entry.item)),
            h("span", { class: "detail" }, many(entry.interactions, "interaction")))))),
      );
      return;
    }
    byId("basket-start").replaceChildren();
    const question = { basket };
    if (user !== null && byId("basket-person").checked) question.user = user;
    const [{ answer, missing }, steps] = await Promise.all([nextOf(question), post("/v1/complete", { ...question, n: STEPS, deny: basket })]);
    await loadItems([
      ...answer.items.map((entry) => entry.item), ...steps.items.map((entry) => entry.item),
      ...answer.items.flatMap((entry) => (entry.reasons ?? []).filter(isItem).map((reason) => reason.because)),
    ]);
    if (own !== turn) return;
    flow.show(
      [{ heading: variantName(answer.variant, answer.model), sub: "puts in next", items: answer.items, before: null, note: missing ?? null }],
      (reason) => isItem(reason) ? cardOf(reason.because) : null,
    );
    drawSteps(steps.items);
    announce([said, answer.items.length ? `Next could be ${nameOf(answer.items[0].item)}.` : "Nothing comes next."].filter(Boolean).join(" "));
  } catch (problem) {
    if (own !== turn || problem.status === 401) return;
    note(byId("basket-note"), problem.message);
    announce(problem.message);
  }
}

async function nextOf(question) {
  const whole = { ...question, k: atMost(NEXT), deny: basket, explain: 2 };
  try {
    return { answer: await post("/v1/recommend", whole) };
  } catch (problem) {
    if (problem.status !== 422) throw problem;
    return { answer: await post("/v1/recommend", { ...whole, explain: 0 }), missing: `Without reasons: ${problem.message}` };
  }
}

function nameHere(reason) {
  const elsewhere = isItem(reason) && !basket.some((item) => String(item) === String(reason.because));
  return reasonName(reason) + (elsewhere && !reason.repeats ? ", from the history" : "");
}

const cardOf = (item) =>
  [...byId("basket-items").children].find((card) => card.dataset.item === String(item)) ?? null;

function drawBasket() {
  byId("basket-empty").hidden = basket.length > 0;
  byId("basket-items").hidden = !basket.length;
  byId("basket-items").replaceChildren(
    ...basket.map((item, row) =>
      h("li", { class: "card", "data-item": String(item) }, naming(item), h("div", { class: "actions" },
        sign("≈", `Similar to ${nameOf(item)}`, () => openSimilar(item)),
        sign("✕", `Take out ${nameOf(item)}`, () => takeOut(row)))),
    ),
  );
}

function drawSteps(items) {
  byId("steps-panel").hidden = !items.length;
  byId("steps").replaceChildren(
    ...items.map((entry) =>
      h("li", {}, h("button", {
        type: "button", class: "chip", "aria-label": `Put into the basket: ${nameOf(entry.item)}`, onclick: () => put(entry.item),
      }, h("span", { class: "name" }, nameOf(entry.item)), h("span", { class: "detail" }, `step ${entry.step}`))),
    ),
  );
}
