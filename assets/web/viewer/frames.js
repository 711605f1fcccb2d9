// From columns to series: what Grafana's PostgreSQL data source makes of a time series' rows.

import { clean, field } from "./format.js";

// `daemon · host` out of `${__field.labels.daemon} · ${__field.labels.host}`.
function named(template, labels, column) {
  if (template) {
    return template.replace(/\$\{__field\.labels\.([A-Za-z0-9_]+)\}/g, (_, label) => labels[label] ?? "");
  }
  const values = Object.values(labels).filter((value) => value !== "");
  return values.length > 0 ? values.join(" ") : column;
}

// Returns the series of all frames of a panel: { name, labels, times, values, settings }, in the
// order in which they appear.
export function series(panel, frames) {
  const found = new Map();
  frames.forEach((frame, index) => {
    const time = frame.columns.find((column) => column.kind === "time");
    const texts = frame.columns.filter((column) => column.kind === "text");
    const numbers = frame.columns.filter((column) => column.kind === "number");
    if (!time) return;
    for (let row = 0; row < time.values.length; row += 1) {
      for (const column of numbers) {
        const key = JSON.stringify([index, column.name, ...texts.map((text) => text.values[row])]);
        let one = found.get(key);
        if (!one) {
          const labels = {};
          for (const text of texts) labels[text.name] = text.values[row] ?? "";
          const settings = field(panel, column.name);
          const name = clean(named(settings.displayName, labels, column.name).trim() || column.name, 200);
          one = { key, name, labels, times: [], values: [], settings };
          found.set(key, one);
        }
        one.times.push(time.values[row]);
        one.values.push(column.values[row]);
      }
    }
  });
  const all = [...found.values()];
  return all.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

export const REDUCERS = {
  lastNotNull: (values) => values.filter((value) => value !== null).at(-1) ?? null,
  last: (values) => values.at(-1) ?? null,
  max: (values) => fold(values, Math.max),
  min: (values) => fold(values, Math.min),
  sum: (values) => fold(values, (a, b) => a + b),
  mean: (values) => {
    const numbers = values.filter((value) => value !== null);
    return numbers.length > 0 ? numbers.reduce((a, b) => a + b) / numbers.length : null;
  },
};

function fold(values, step) {
  let result = null;
  for (const value of values) if (value !== null) result = result === null ? value : step(result, value);
  return result;
}

// The reducer that the panel asks for.
export function reducer(panel) {
  const calcs = panel.options?.reduceOptions?.calcs || ["lastNotNull"];
  return REDUCERS[calcs[0]] || REDUCERS.lastNotNull;
}

// Nulls between two values that are at most `spanMs` apart become undefined, which is no gap.
export function bridged(times, values, spanMs) {
  const result = values.slice();
  if (spanMs === true) return result.map((value) => value ?? undefined);
  let last = -1;
  for (let index = 0; index < values.length; index += 1) {
    if (values[index] === null || values[index] === undefined) continue;
    if (last >= 0 && index - last > 1 && times[index] - times[last] <= (spanMs || 0)) {
      for (let hole = last + 1; hole < index; hole += 1) result[hole] = undefined;
    }
    last = index;
  }
  return result;
}

// One list of times for all series, and their values at these: null is a gap, undefined nothing.
export function aligned(all) {
  const times = [...new Set(all.flatMap((one) => one.times))].sort((a, b) => a - b);
  const place = new Map(times.map((time, index) => [time, index]));
  const columns = all.map((one) => {
    const values = bridged(one.times, one.values, one.settings.custom?.spanNulls);
    const column = new Array(times.length).fill(undefined);
    one.times.forEach((time, index) => { column[place.get(time)] = values[index]; });
    return column;
  });
  return [times, ...columns];
}

// Fewer rows may lie evenly by chance.
const BUCKETS = 10;

// The width of a bucket when many times lie evenly, else null: then the rows are events.
export function bucket(times) {
  const gaps = [];
  for (let index = 1; index < times.length; index += 1) gaps.push(times[index] - times[index - 1]);
  gaps.sort((a, b) => a - b);
  const usual = gaps[Math.floor(gaps.length / 2)];
  return times.length >= BUCKETS && gaps.at(-1) <= usual * 1.5 ? usual : null;
}

// Stretches of equal values of one series, within `range` and up to now: { from, to, value }. A value
// holds until the next one or until a null, unless the nulls are shorter than `spanMs`. The last one
// holds for its bucket; that of events, to the end.
export function stretches(one, range, spanMs) {
  const span = spanMs === true ? Infinity : spanMs || 0;
  const end = Math.min(range.to, range.now ?? range.to);
  const width = bucket(one.times);
  const has = (index) => one.values[index] !== null && one.values[index] !== undefined;
  const until = (index) => {
    const following = index + 1;
    if (following >= one.times.length) return width === null ? end : one.times[index] + width;
    let next = following;
    while (next < one.times.length && !has(next)) next += 1;
    const bridged = next < one.times.length && one.times[next] - one.times[index] <= span;
    return one.times[next === following || bridged ? next : following];
  };
  const result = [];
  one.times.forEach((time, index) => {
    if (!has(index)) return;
    const value = one.values[index];
    const [from, to] = [Math.max(time, range.from), Math.min(until(index), end)];
    const before = result.at(-1);
    if (before && before.value === value && before.to >= from) before.to = Math.max(before.to, to);
    else if (to > from) result.push({ from, to, value });
  });
  return result;
}
