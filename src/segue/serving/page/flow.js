// Lists of recommendations beside the items that they come from, with links drawn between them.

import { h, s, score } from "./dom.js";
import { hasTitle, nameOf } from "./items.js";
import { openSimilar } from "./similar.js";

const NARROW = 860;

/** A round button with a sign, named for screen readers. */
export function sign(text, label, onclick) {
  return h("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick }, text);
}

/** The title of an item, and below it the id and further facts. */
export function naming(id, ...facts) {
  const shown = [hasTitle(id) ? String(id) : null, ...facts].filter(Boolean).join(" · ");
  return h(
    "div",
    { class: "naming" },
    h("span", { class: "name" }, nameOf(id)),
    shown ? h("span", { class: "detail" }, shown) : null,
  );
}

/** True for a reason that is an item: one place in the history, one of a basket, or the item with all its repeats. */
export const isItem = (reason) => ["item", "basket", "repeats"].includes(reason.kind) && reason.because !== undefined;

/** Words for a reason. */
export function reasonName(reason) {
  if (reason.kind === "user") return "the user as such";
  if (!isItem(reason)) return [reason.kind, reason.because].filter((part) => part !== undefined && part !== null).join(" ");
  return [nameOf(reason.because), reason.repeats].filter(Boolean).join(", ");
}

/** Lists at the sides of a column of sources. */
export class Flow {
  /**
   * @param {HTMLElement} place contains the column of sources; lists are put beside it
   * @param {{take: string, onTake: (item: any) => void, name: (reason: object) => string}} options name of the button
   *   on each item, its effect, and words for a reason
   */
  constructor(place, options) {
    this.place = place;
    this.options = options;
    this.svg = s("svg", { class: "links", "aria-hidden": "true" });
    place.prepend(this.svg);
    this.lists = [];
    this.links = [];
    this.pinned = null;
    this.hovered = null;
    const draw = () => requestAnimationFrame(() => this.draw());
    new ResizeObserver(draw).observe(place);
    document.fonts?.ready.then(draw);
  }

  /**
   * Show lists.
   * @param {{heading: string, sub: string, items: object[], before: Map<string, number> | null, note: string | null}[]}
   *   lists `before` has the ranks of an earlier list, to show what moved
   * @param {(reason: object) => HTMLElement | null} sourceOf card that a reason stands for
   */
  show(lists, sourceOf) {
    const kept = this.focusedItem();
    this.lists.forEach(({ column }) => column.remove());
    this.place.classList.toggle("two", lists.length > 1);
    this.links = [];
    this.pinned = null;
    this.lists = lists.map((list, side) => {
      const other = lists.length > 1 ? ranks(lists[1 - side].items) : null;
      const effects = list.items.flatMap((entry) => (entry.reasons ?? []).map((reason) => Math.abs(reason.effect)));
      const strongest = Math.max(...effects, 0);
      const cards = list.items.map((entry) => this.card(entry, side, list, other, strongest, sourceOf));
      const column = h(
        "section",
        { class: `column list side-${side}`, "aria-labelledby": `${this.place.id}-list-${side}` },
        h("h2", { id: `${this.place.id}-list-${side}` }, list.heading, " ", list.sub ? h("small", {}, list.sub) : null),
        list.note ? h("p", { class: "hint" }, list.note) : null,
        h("ol", { class: "cards" }, cards),
      );
      this.place.append(column);
      return { column, cards };
    });
    if (kept) this.place.querySelector(`[data-key="${CSS.escape(kept)}"] .pick`)?.focus();
    this.pinned ??= this.links[0]?.card ?? null;
    this.draw();
  }

  focusedItem() {
    const card = document.activeElement?.closest?.(".recommended");
    return card && this.place.contains(card) ? card.dataset.key : null;
  }

  card(entry, side, list, other, strongest, sourceOf) {
    const key = `${side}:${entry.item}`;
    const reasons = entry.reasons ?? [];
    const moved = movement(list.before, entry);
    const there = other?.get(String(entry.item));
    const card = h(
      "li",
      {
        class: "card recommended", "data-key": key, "data-item": String(entry.item),
        onpointerenter: () => this.light(card, true), onpointerleave: () => this.light(card, false),
      },
      h("span", { class: "rank" }, h("span", { class: "unseen" }, "Rank "), String(entry.rank)),
      h(
        "button",
        { type: "button", class: "pick", "aria-pressed": "false", onclick: () => this.pin(card) },
        naming(entry.item),
      ),
      h("span", { class: "value", title: "Score" }, h("span", { class: "unseen" }, "Score "), score(entry.score)),
      h(
        "div",
        { class: "actions" },
        sign("≈", `Similar to ${nameOf(entry.item)}`, () => openSimilar(entry.item)),
        sign("+", `${this.options.take}: ${nameOf(entry.item)}`, () => this.options.onTake(entry.item)),
      ),
      moved || there
        ? h(
            "p",
            { class: "badges" },
            moved,
            there ? h("span", { class: "badge" }, `${there === entry.rank ? "also" : "there"} #${there}`) : null,
          )
        : null,
      reasons.length
        ? h(
            "ul",
            { class: "reasons", "aria-label": "Reasons" },
            grouped(reasons, this.options.name).map(([name, effects]) =>
              h(
                "li",
                {},
                h("span", { class: "why" }, name),
                effects.map((effect) =>
                  h(
                    "span",
                    { class: effect < 0 ? "effect against" : "effect" },
                    `${effect < 0 ? "−" : "+"}${score(Math.abs(effect))}`,
                  ),
                ),
              ),
            ),
          )
        : null,
    );
    for (const reason of reasons) {
      const source = sourceOf(reason);
      if (source) {
        const width = 1 + 5 * (strongest ? Math.sqrt(Math.abs(reason.effect) / strongest) : 0);
        const path = s("path", { class: reason.effect < 0 ? "against" : "for", "stroke-width": width.toFixed(2) });
        this.links.push({ card, source, side, path });
      }
    }
    return card;
  }

  pin(card) {
    this.pinned = card;
    this.draw();
  }

  light(card, on) {
    this.hovered = on ? card : null;
    this.draw();
  }

  /** Draw the links: those of the card that is pinned or pointed at stand out. */
  draw() {
    if (!this.place.offsetParent) return;
    const box = this.place.getBoundingClientRect();
    const narrow = window.innerWidth < NARROW;
    const chosen = this.hovered ?? this.pinned;
    this.svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    this.svg.setAttribute("width", box.width);
    this.svg.setAttribute("height", box.height);
    for (const card of this.place.querySelectorAll(".lit")) card.classList.remove("lit");
    const strong = [];
    const faint = [];
    for (const link of this.links) {
      const lit = link.card === chosen;
      if (lit) {
        link.source.classList.add("lit");
        link.card.classList.add("lit");
      }
      link.path.classList.toggle("lit", lit);
      if (link.source.hidden || !link.source.isConnected) continue;
      const from = link.source.getBoundingClientRect();
      const to = link.card.getBoundingClientRect();
      const y1 = from.top - box.top + Math.min(from.height / 2, 28);
      const y2 = to.top - box.top + Math.min(to.height / 2, 28);
      let d;
      if (narrow) {
        if (!lit) continue;
        const x1 = from.left - box.left;
        const x2 = to.left - box.left;
        const bend = Math.max(2, x2 - 26 - link.side * 6);
        d = `M ${x1} ${y1} C ${bend} ${y1} ${bend} ${y1} ${bend} ${y1 + 26} L ${bend} ${y2 - 26} C ${bend} ${y2} ${bend} ${y2} ${x2} ${y2}`;
      } else {
        const [x1, x2] = link.side === 0
          ? [from.right - box.left, to.left - box.left] : [from.left - box.left, to.right - box.left];
        const half = (x1 + x2) / 2;
        d = `M ${x1} ${y1} C ${half} ${y1} ${half} ${y2} ${x2} ${y2}`;
      }
      link.path.setAttribute("d", d);
      (lit ? strong : faint).push(link.path);
    }
    for (const { cards } of this.lists) {
      for (const card of cards) card.querySelector(".pick").setAttribute("aria-pressed", String(card === this.pinned));
    }
    this.svg.replaceChildren(...faint, ...strong);
  }
}

/** Ranks by item. */
export const ranks = (items) => new Map(items.map((entry) => [String(entry.item), entry.rank]));

/** Effects by name: an item that stands in the history several times is named once. */
function grouped(reasons, nameOfReason) {
  const effects = new Map();
  for (const reason of reasons) {
    const name = nameOfReason(reason);
    effects.set(name, [...(effects.get(name) ?? []), reason.effect]);
  }
  return [...effects];
}

function movement(before, entry) {
  if (!before) return null;
  const rank = before.get(String(entry.item));
  if (rank === undefined) return h("span", { class: "badge new" }, "new");
  const steps = rank - entry.rank;
  if (!steps) return null;
  return h(
    "span",
    { class: steps > 0 ? "badge up" : "badge down" },
    h("span", { "aria-hidden": "true" }, steps > 0 ? "▲ " : "▼ "),
    h("span", { class: "unseen" }, steps > 0 ? "up " : "down "),
    String(Math.abs(steps)),
  );
}
