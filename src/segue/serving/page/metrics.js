// Figures from the text of /metrics, in the form of Prometheus.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Samples of a text: name, labels and value. */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) labels[name] = value.replace(/\\(.)/g, "$1");
    samples.push({ name: found[1], labels, value: Number(found[3].replace("+Inf", "Infinity")) });
  }
  return samples;
}

/** Sum of the samples of a name that have the given labels. */
export function total(samples, name, labels = {}) {
  return chosen(samples, name, labels).reduce((sum, sample) => sum + sample.value, 0);
}

function chosen(samples, name, labels) {
  return samples.filter(
    (sample) => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
  );
}

/** Cumulative counts of a histogram by upper bound, as pairs, summed over all other labels. */
export function buckets(samples, name, labels = {}) {
  const counts = new Map();
  for (const sample of chosen(samples, `${name}_bucket`, labels)) {
    const bound = Number(sample.labels.le.replace("+Inf", "Infinity"));
    counts.set(bound, (counts.get(bound) ?? 0) + sample.value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/** Quantile of a histogram, read as evenly spread within each bucket; null if it is empty. */
export function quantile(pairs, share) {
  const all = pairs.at(-1)?.[1] ?? 0;
  if (!all) return null;
  let [low, below] = [0, 0];
  for (const [bound, count] of pairs) {
    if (count >= share * all) {
      return bound === Infinity ? low : low + ((bound - low) * (share * all - below)) / Math.max(count - below, 1e-9);
    }
    [low, below] = [bound, count];
  }
  return low;
}
