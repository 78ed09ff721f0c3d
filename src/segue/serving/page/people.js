// The view of a person: the history, the lists that follow from it, and changes to try.

import { get, post, withQuery } from "./api.js";
import { combobox } from "./combobox.js";
import { announce, byId, h, many, moment, note } from "./dom.js";
import { Flow, isItem, naming, ranks, reasonName, sign } from "./flow.js";
import { loadItems, nameOf, searchItems } from "./items.js";
import { atMost, seconds, servedModels, variantName } from "./models.js";
import { openSimilar } from "./similar.js";

const REASONS = 3;
/** Share of repeats from which on lists show items of the history, unless the box says otherwise; as in training. */
const ENOUGH_REPEATS = 0.1;
const AT_FIRST = () => (window.innerWidth < 860 ? 5 : 12);

let flow;
let box;
let user = null;
let stored = [];
let history = [];
let stale = 0;
let shown = 0;
let firstRanks = [];
let turn = 0;
let lists = [];
let seenChosen = false;

/** The person on the page; null before one is chosen. */
export const currentUser = () => user;

const isChanged = () => stale > 0;

/** Build the view once. */
export function startPeople() {
  box = combobox(byId("person-field"), {
    label: "Person", placeholder: "Id of a user", free: true, search: searchUsers,
    choose: (id) => (location.hash = `#/people/${encodeURIComponent(id)}`),
  });
  combobox(byId("put-field"), {
    label: "Put an item in", placeholder: "Search an item", clear: true, search: searchItems, choose: put,
  });
  flow = new Flow(byId("people-flow"), { take: "Put into the history", onTake: put, name: reasonName });
  for (const id of ["model", "beside", "length", "seen"]) byId(id).addEventListener("change", () => changeSettings(id));
  byId("seen").addEventListener("change", () => (seenChosen = true));
  byId("undo").addEventListener("click", () => {
    history = [...stored];
    stale = 0;
    refresh("The stored history is back.");
    box.focus();
  });
  byId("older").addEventListener("click", () => {
    const before = shown;
    shown = history.length;
    drawHistory();
    drawLists();
    byId("history").children[before]?.querySelector("button")?.focus();
  });
}

async function searchUsers(query) {
  const answer = await get(withQuery("/v1/users", { query, limit: 20 }));
  return answer.users.map((entry) => ({
    value: entry.user, label: String(entry.user), detail: many(entry.interactions, "interaction"),
  }));
}

/** Fill the choice of models. */
export function offerModels() {
  const models = servedModels();
  const options = models.map((one) => [one.variant, variantName(one.variant, one.model)]);
  fill(byId("model"), [["", "The user's own"], ...options]);
  fill(byId("beside"), [["", "None"], ...options]);
  byId("model-field").hidden = byId("beside-field").hidden = models.length < 2;
  if (!seenChosen) byId("seen").checked = models.some((one) => one.repeat_share >= ENOUGH_REPEATS);
}

function fill(select, options) {
  const value = select.value;
  select.replaceChildren(...options.map(([name, label]) => h("option", { value: name }, label)));
  if (options.some(([name]) => name === value)) select.value = value;
}

function changeSettings(id) {
  if (user === null) return;
  if (id === "model" && !isChanged()) openPerson(user);
  else refresh(null, true);
}

/** Show a person, or some to choose from when there is no id. */
export async function openPerson(id) {
  const own = ++turn;
  user = id;
  note(byId("people-note"), null);
  byId("person").hidden = id === null;
  byId("some-people").hidden = id !== null;
  byId("people-title").textContent = id === null ? "What comes next for …" : `What comes next for ${id}`;
  box.value = id ?? "";
  if (id === null) return offerPeople(own);
  let answer = { interactions: 0, history: [], events: [], known: false };
  try {
    const variant = byId("model").value;
    const { users } = await get(withQuery("/v1/users", { query: id, limit: 1, variant }));
    if (users.length && String(users[0].user) === String(id)) {
      answer = await get(withQuery(`/v1/users/${encodeURIComponent(id)}`, { variant }));
    }
  } catch (problem) {
    if (own === turn) fail(problem);
    return;
  }
  if (own !== turn) return;
  const unseen = answer.interactions - answer.history.length;
  stored = answer.history.map((entry, row) => ({ ...entry, position: unseen + row + 1 }));
  history = [...stored];
  stale = 0;
  shown = Math.min(AT_FIRST(), history.length);
  const times = answer.events.length;
  byId("person-facts").textContent = [
    many(answer.interactions, "interaction"),
    times ? many(times, "stored event") : null,
    answer.known ? null : answer.interactions ? "not in the data of the model" : "no history",
  ].filter(Boolean).join(" · ");
  await refresh(null, true);
}

async function offerPeople(own) {
  const place = byId("some-people");
  try {
    const answer = await get(withQuery("/v1/users", { limit: 8 }));
    if (own !== turn) return;
    place.replaceChildren(
      h("p", { class: "hint", id: "some-people-title" }, "Search an id, or begin with one of these."),
      h(
        "ul",
        { class: "chips", "aria-labelledby": "some-people-title" },
        answer.users.map((entry) =>
          h(
            "li",
            {},
            h(
              "a",
              { class: "chip", href: `#/people/${encodeURIComponent(entry.user)}` },
              h("span", { class: "name" }, String(entry.user)),
              h("span", { class: "detail" }, many(entry.interactions, "interaction")),
            ),
          ),
        ),
      ),
    );
  } catch (problem) {
    if (own === turn) fail(problem);
  }
}

function fail(problem) {
  if (problem.status === 401) return;
  byId("person").hidden = false;
  note(byId("people-note"), problem.message);
  announce(problem.message);
}

/** Put an item at the end of the history. */
function put(item) {
  const timed = history.length ? history.every((entry) => entry.time !== undefined) : false;
  history.push({ item, added: true, ...(timed ? { time: new Date().toISOString() } : {}) });
  stale++;
  shown = Math.min(history.length, shown + 1);
  refresh(`${nameOf(item)} is in the history.`);
}

function takeOut(row) {
  const [entry] = history.splice(row, 1);
  stale++;
  refresh(`${nameOf(entry.item)} is out of the history.`);
  const cards = byId("history").children;
  (cards[Math.min(history.length - row, cards.length - 1)]?.querySelector(".out") ?? box).focus();
}

/** Ask for the lists again, and show them. */
async function refresh(said, anew = false) {
  const own = ++turn;
  note(byId("people-note"), null);
  byId("changed").hidden = !isChanged();
  byId("changed-text").textContent = "You try a changed history. Nothing of it is stored.";
  try {
    await loadItems(history.slice(-200).map((entry) => entry.item));
    if (own !== turn) return;
    drawHistory();
    const variants = [byId("model").value || null];
    if (servedModels().length > 1 && byId("beside").value) variants.push(byId("beside").value);
    const answers = await Promise.all(variants.map((variant, side) => listOf(variant, side > 0)));
    await loadItems(answers.flatMap(({ answer }) => [
      ...answer.items.map((entry) => entry.item),
      ...answer.items.flatMap((entry) => (entry.reasons ?? []).filter(isItem).map((reason) => reason.because)),
    ]));
    if (own !== turn) return;
    if (anew && !isChanged()) firstRanks = answers.map(({ answer }) => ranks(answer.items));
    lists = answers.map(({ answer, missing }, side) => ({
      heading: variantName(answer.variant, answer.model),
      sub: side === 0 && answers.length === 1 ? "recommends" : "",
      items: answer.items,
      before: isChanged() ? firstRanks[side] : null,
      note: missing ?? (answer.model === "popularity" && !history.length ? "No history, so what most people take." : null),
    }));
    drawLists();
    const best = answers[0].answer.items[0];
    announce([said, best ? `First of the list: ${nameOf(best.item)}.` : "The list is empty."].filter(Boolean).join(" "));
  } catch (problem) {
    if (own === turn) fail(problem);
  }
}

/**
 * A list of a variant: with reasons, or without when the model has none. The second variant gets the `same` history as
 * the first, since its own data may hold another one.
 */
async function listOf(variant, same) {
  const question = { user, k: atMost(Number(byId("length").value)), explain: REASONS };
  if (variant) question.variant = variant;
  if (byId("seen").checked) question.exclude_seen = false;
  if (isChanged() || same) question.history = asked(variant);
  try {
    return { answer: await post("/v1/recommend", question) };
  } catch (problem) {
    if (problem.status !== 422) throw problem;
    const answer = await post("/v1/recommend", { ...question, explain: 0 });
    return { answer, missing: `Without reasons: ${problem.message}` };
  }
}

/** The tried history as the API takes it: with times if all items have one. */
function asked(variant) {
  const timed = history.length > 0 && history.every((entry) => entry.time !== undefined && entry.time !== null);
  return history.map((entry) => (timed ? { item: entry.item, time: seconds(entry.time, variant) } : entry.item));
}

/** Row in the history that a reason stands for; -1 if it is not among them. */
function rowOf(reason) {
  if (!isItem(reason)) return -1;
  const same = (entry) => String(entry.item) === String(reason.because);
  const row = isChanged() ? reason.position - 1 : history.findIndex((entry) => entry.position === reason.position);
  return history[row] && same(history[row]) ? row : history.findLastIndex(same);
}

/** Card of a reason, or the button behind which it is. */
function cardOf(reason) {
  const row = rowOf(reason);
  return row < 0 ? null : (byId("history").querySelector(`[data-row="${row}"]`) ?? byId("older"));
}

function drawLists() {
  flow.show(lists, cardOf);
}

function drawHistory() {
  const list = byId("history");
  const cards = [];
  for (let row = history.length - 1; row >= Math.max(0, history.length - shown); row--) cards.push(historyCard(row));
  list.replaceChildren(...cards);
  list.hidden = !cards.length;
  const rest = history.length - shown;
  byId("older").hidden = rest <= 0;
  byId("older").textContent = `Show ${many(Math.max(rest, 1), "older item")}`;
}

function historyCard(row) {
  const entry = history[row];
  const time = seconds(entry.time, byId("model").value);
  return h(
    "li",
    { class: entry.added ? "card added" : "card", "data-row": String(row), "data-item": String(entry.item) },
    naming(entry.item, entry.added ? "tried" : null, !entry.added && time !== null ? moment(time) : null),
    h(
      "div",
      { class: "actions" },
      sign("≈", `Similar to ${nameOf(entry.item)}`, () => openSimilar(entry.item)),
      (() => {
        const button = sign("✕", `Take out ${nameOf(entry.item)}`, () => takeOut(row));
        button.classList.add("out");
        return button;
      })(),
    ),
  );
}
