// The page: views by the address, the theme, and the token.

import { tokenForm } from "./api.js";
import { openBasket, startBasket } from "./basket.js";
import { byId } from "./dom.js";
import { forgetItems } from "./items.js";
import { loadModels } from "./models.js";
import { offerModels, openPerson, startPeople } from "./people.js";
import { openService, stopService } from "./service.js";
import { startSimilar } from "./similar.js";

const VIEWS = ["people", "basket", "service"];
const THEME = "segue-theme";

function route(moved = true) {
  const [, view = "people", id = ""] = /^#\/(\w+)(?:\/(.*))?$/.exec(location.hash) ?? [];
  const name = VIEWS.includes(view) ? view : "people";
  for (const one of VIEWS) {
    byId(one).hidden = one !== name;
    document.querySelector(`[data-view="${one}"]`).toggleAttribute("data-here", one === name);
    if (one === name) document.querySelector(`[data-view="${one}"]`).setAttribute("aria-current", "page");
    else document.querySelector(`[data-view="${one}"]`).removeAttribute("aria-current");
  }
  document.title = `${{ people: "People", basket: "Basket", service: "Service" }[name]} · segue`;
  stopService();
  if (name === "people") openPerson(id ? decoded(id) : null);
  if (name === "basket") openBasket();
  if (name === "service") openService();
  if (moved) window.scrollTo(0, 0);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function startTheme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = localStorage.getItem(THEME);
    const dark = chosen ? chosen === "dark" : system.matches;
    if (chosen) document.documentElement.dataset.theme = chosen;
    button.textContent = dark ? "☀" : "☾";
    button.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
    button.title = dark ? "Light colours" : "Dark colours";
    button.onclick = () => {
      localStorage.setItem(THEME, dark ? "light" : "dark");
      apply();
    };
  };
  system.addEventListener("change", apply);
  apply();
}

async function begin() {
  forgetItems();
  try {
    await loadModels();
    offerModels();
  } catch (problem) {
    if (problem.status === 401) return; // the field for a token is there, and calls this again
  }
  route(false); // it shows any other problem
}

startTheme();
startSimilar();
startPeople();
startBasket();
tokenForm(begin);
window.addEventListener("hashchange", () => location.hash !== "#main" && route());
begin();
