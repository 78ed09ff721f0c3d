// The served models.

import { get } from "./api.js";

const UNITS = { s: 1, ms: 1e3, us: 1e6, ns: 1e9 };

let models = [];

/** Load the served models. */
export async function loadModels() {
  models = (await get("/v1/models")).models;
  return models;
}

/** All served models. */
export const servedModels = () => models;

/** Name of a variant for readers: its model, and its own name if there are several. */
export function variantName(variant, model) {
  return models.length > 1 ? `${model} (${variant})` : model;
}

/** Seconds since 1970 of a time of a history: an ISO text, or a number in the unit of the log. */
export function seconds(time, variant) {
  if (time === null || time === undefined) return null;
  if (typeof time === "string") return Date.parse(time) / 1000;
  const model = models.find((one) => one.variant === variant) ?? models[0];
  return time / (UNITS[model?.time_unit] ?? 1);
}

/** A length of lists that every model can give. */
export const atMost = (length) => Math.min(length, ...models.map((model) => model.items));
