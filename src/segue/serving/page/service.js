// The view of the service: rates, latencies, models and data, from /health, /metrics and /v1/models.

import { get, Problem, text } from "./api.js";
import { byId, h, many, moment, note, s, whole } from "./dom.js";
import { buckets, parseMetrics, quantile, total } from "./metrics.js";
import { loadModels } from "./models.js";

const EVERY = 2000;
const KEPT = 60;

let timer = 0;
let turn = 0;
let last = null;
let rates = [];
let shownModels = "";

/** Begin to look at the service; `stopService` ends it. */
export function openService() {
  stopService();
  look();
}

/** End looking at the service. */
export function stopService() {
  turn++;
  clearTimeout(timer);
  last = null;
  rates = [];
}

async function look() {
  const own = turn;
  try {
    if (!document.hidden) await show(own);
    if (own === turn) note(byId("service-note"), null);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (own === turn && problem.status !== 401) note(byId("service-note"), problem.message);
  }
  if (own === turn) timer = setTimeout(look, EVERY);
}

async function show(own) {
  const [state, metrics, models] = await Promise.all([health(), text("/metrics"), loadModels()]);
  if (own !== turn) return;
  const now = performance.now() / 1000;
  const samples = parseMetrics(metrics);
  const requests = total(samples, "segue_requests_total");
  if (last) rates = [...rates, Math.max(0, requests - last.requests) / (now - last.now)].slice(-KEPT);
  last = { now, requests };
  const latency = buckets(samples, "segue_request_seconds", { route: "post-recommend" });
  const stored = total(samples, "segue_events_total", { outcome: "stored" });
  const errors = total(samples, "segue_errors_total");
  byId("tiles").replaceChildren(
    tile("State", state === "ok" ? "ready" : state, state === "ok" ? "good" : "bad", "answers requests", null),
    tile("Requests a second", rates.length ? rates.at(-1).toFixed(1) : "…", "", `${whole(requests)} since the start`, sparkline()),
    tile("A list takes", milliseconds(quantile(latency, 0.5)), "", `99 % within ${milliseconds(quantile(latency, 0.99))}`),
    tile("Events stored", whole(stored), "", `${whole(total(samples, "segue_unknown_items_total"))} of unknown items`),
    tile("Waiting", whole(total(samples, "segue_queue_requests")), "", "requests in the queue"),
    tile("Errors", whole(errors), errors ? "bad" : "", "answers with a status from 500"),
  );
  showModels(models, samples);
  showRoutes(samples);
}

async function health() {
  try {
    return (await get("/health/ready")).status;
  } catch (problem) {
    if (problem.status === 503) return "not ready";
    throw problem;
  }
}

function tile(name, value, kind, detail, drawing = null) {
  return h("div", { class: `tile ${kind}` }, h("h2", {}, name), h("p", { class: "figure" }, value), drawing, h("p", { class: "detail" }, detail));
}

function sparkline() {
  const top = Math.max(...rates, 1);
  const points = rates.map((rate, row) => `${(100 * row) / (KEPT - 1)},${(23 - (21 * rate) / top).toFixed(1)}`).join(" ");
  return s("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("polyline", { points, "vector-effect": "non-scaling-stroke" }));
}

function milliseconds(value) {
  if (value === null) return "–";
  return value < 0.01 ? `${(value * 1000).toFixed(1)} ms` : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

function showModels(models, samples) {
  const state = JSON.stringify(models);
  if (state === shownModels) return; // open details stay open
  shownModels = state;
  const made = (variant) => total(samples, "segue_model_made_timestamp_seconds", { variant });
  byId("models").replaceChildren(
    ...models.map((model) =>
      h("article", { class: "model" },
        h("h3", {}, model.model, " ", h("span", { class: "badge" }, `${model.variant} · ${Math.round(model.share * 100)} % of the users`)),
        h("dl", {},
          pair("Run", model.run),
          pair("Trained", made(model.variant) ? moment(made(model.variant)) : "unknown"),
          pair("Loaded", moment(Date.parse(model.loaded) / 1000)),
          pair("Data", `${many(model.users, "user")}, ${many(model.items, "item")}, ${many(model.interactions, "interaction")}`),
          pair("On top", many(model.live_events, "stored event")),
          pair("Knows", ["the order", model.has_times ? "times" : null, model.has_sessions ? "sessions" : null].filter(Boolean).join(", ")),
        ),
        h("details", {}, h("summary", {}, "Settings"),
          h("dl", { class: "settings" }, Object.entries(model.settings).map(([name, value]) =>
            pair(name, value === null ? "none" : Array.isArray(value) ? value.join(", ") || "none" : String(value))))),
      )),
  );
}

const pair = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function showRoutes(samples) {
  const routes = [...new Set(samples.filter(({ name }) => name === "segue_requests_total").map(({ labels }) => labels.route))];
  const rows = routes
    .map((route) => {
      const pairs = buckets(samples, "segue_request_seconds", { route });
      return [route, total(samples, "segue_requests_total", { route }), quantile(pairs, 0.5), quantile(pairs, 0.99), total(samples, "segue_errors_total", { route })];
    })
    .sort((a, b) => b[1] - a[1]);
  byId("routes").replaceChildren(
    h("table", {},
      h("thead", {}, h("tr", {}, ["Route", "Requests", "Median", "99 %", "Errors"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(([route, count, half, most, failed]) =>
        h("tr", {}, h("th", { scope: "row" }, route === "none" ? "other" : route),
          [whole(count), milliseconds(half), milliseconds(most), whole(failed)].map((value) => h("td", {}, value))))),
    ),
  );
}
