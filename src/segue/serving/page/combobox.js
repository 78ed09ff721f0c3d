// A search box with a list of options, by the pattern "combobox" of the ARIA Authoring Practices.

import { announce, h, many } from "./dom.js";

let count = 0;

/**
 * Put a search box into an element.
 * @param {HTMLElement} place where it goes
 * @param {{label: string, placeholder: string, search: (query: string) => Promise<{value: any, label: string,
 *   detail?: string}[]>, choose: (value: any) => void, free?: boolean, clear?: boolean}} options `free` takes a typed
 *   text that is no option; `clear` empties the box after a choice
 * @returns {HTMLInputElement} the box
 */
export function combobox(place, { label, placeholder, search, choose, free = false, clear = false }) {
  const id = `search-${++count}`;
  const input = h("input", {
    id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder,
    "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": `${id}-list`,
  });
  const list = h("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, class: "options", hidden: true });
  place.append(h("label", { for: id }, label), h("div", { class: "search" }, input, list));

  let options = [];
  let active = -1;
  let timer = 0;
  let turn = 0;

  const close = () => {
    turn++;
    clearTimeout(timer);
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (row) => {
    active = row;
    [...list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === row)));
    const option = list.children[row];
    if (!option) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  };
  const take = (value) => {
    input.value = clear ? "" : String(value);
    close();
    choose(value);
  };
  const look = async () => {
    const own = ++turn;
    let answer;
    try {
      answer = await search(input.value.trim());
    } catch (problem) {
      announce(problem.message);
      return;
    }
    if (own !== turn) return;
    options = answer;
    list.replaceChildren(
      ...options.map((option, row) =>
        h(
          "li",
          {
            id: `${id}-${row}`, role: "option", "aria-selected": "false",
            onpointerdown: (event) => event.preventDefault(),
            onclick: () => take(option.value),
          },
          h("span", { class: "name" }, option.label),
          option.detail ? h("span", { class: "detail" }, option.detail) : null,
        ),
      ),
    );
    active = -1;
    input.removeAttribute("aria-activedescendant");
    list.hidden = options.length === 0;
    input.setAttribute("aria-expanded", String(options.length > 0));
    announce(options.length ? `${many(options.length, "suggestion")}.` : "Nothing found.");
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 150);
  });
  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => list.hidden && look());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await look();
      if (!options.length) return;
      const step = event.key === "ArrowDown" ? 1 : -1;
      mark(active < 0 && step < 0 ? options.length - 1 : (active + step + options.length) % options.length);
    } else if (event.key === "Escape") {
      close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      const typed = input.value.trim();
      if (active >= 0 && !list.hidden) return take(options[active].value);
      if (!typed) return;
      if (free) return take(typed);
      clearTimeout(timer);
      await look();
      const exact = options.find((option) => String(option.value) === typed) ?? (options.length === 1 ? options[0] : null);
      if (exact) take(exact.value);
    }
  });
  return input;
}
