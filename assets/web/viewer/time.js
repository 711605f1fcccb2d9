// Time ranges: what the address says, what it means now, and the lists to choose from.

import { element, dropdown } from "./dom.js";
import { formatTime } from "./format.js";

const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

const WORDS = { s: "seconds", m: "minutes", h: "hours", d: "days", w: "weeks" };

export const RANGES = [
  ["now-5m", "Last 5 minutes"], ["now-15m", "Last 15 minutes"], ["now-30m", "Last 30 minutes"],
  ["now-1h", "Last hour"], ["now-3h", "Last 3 hours"], ["now-6h", "Last 6 hours"],
  ["now-12h", "Last 12 hours"], ["now-24h", "Last 24 hours"], ["now-2d", "Last 2 days"],
  ["now-7d", "Last 7 days"], ["now-30d", "Last 30 days"], ["now-90d", "Last 90 days"],
];

// Milliseconds of `now`, `now-1h`, a number of milliseconds or an ISO time; NaN for all else.
export function moment(text, nowMs) {
  const relative = /^now(?:-(\d{1,6})([smhdw]))?$/.exec(text);
  if (relative) return nowMs - (relative[1] ? Number(relative[1]) * UNITS[relative[2]] : 0);
  if (/^\d{1,15}$/.test(text)) return Number(text);
  return /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : NaN;
}

// The range that `from` and `to` mean at `nowMs`; null when they mean none.
export function resolve({ from, to }, nowMs) {
  const range = { from: Math.floor(moment(from, nowMs)), to: Math.floor(moment(to, nowMs)) };
  return range.from < range.to ? range : null;
}

export function isRelative({ to }) { return to === "now"; }

export function describe({ from, to }) {
  const known = RANGES.find(([start]) => start === from && to === "now");
  if (known) return known[1];
  const last = to === "now" && /^now-(\d+)([smhdw])$/.exec(from);
  if (last) return "Last " + last[1] + " " + WORDS[last[2]];
  const part = (text) => (/^now/.test(text) ? text : formatTime(moment(text, 0)));
  return part(from) + " to " + part(to);
}

// `2026-11-25T10:00:00` in local time, as inputs of the browser have it.
function local(ms) { return formatTime(ms).replace(" ", "T"); }

const REFRESH = ["", "5s", "10s", "30s", "1m"];

export function refreshMs(text) {
  const parts = /^(\d{1,4})([smh])$/.exec(text);
  return parts ? Number(parts[1]) * UNITS[parts[2]] : 0;
}

// The picker, the refresh list and their buttons. `change` gets { from, to } or { refresh }.
export class TimeControls {
  constructor(parent, state, change, again, nowMs) {
    this.state = state;
    this.change = change;
    this.nowMs = nowMs;
    const { made, summary, box } = dropdown("time", describe(state));
    this.summary = summary;
    this.drop = made;
    this.fill(box);
    const zoomOut = element("button", {
      type: "button", text: "−", title: "Twice the range", "aria-label": "Zoom out",
      on: { click: () => this.zoom() },
    });
    const list = element("select", { "aria-label": "Refresh", title: "Refresh" });
    const choices = REFRESH.includes(state.refresh) ? REFRESH : [...REFRESH, state.refresh];
    for (const choice of choices) {
      list.append(element("option", { value: choice, text: choice || "off", selected: choice === state.refresh }));
    }
    list.addEventListener("change", () => change({ refresh: list.value }));
    this.refresh = list;
    const button = element("button", {
      type: "button", text: "⟳", title: "Refresh now", "aria-label": "Refresh now", on: { click: again },
    });
    parent.append(made, zoomOut, button, list);
  }

  fill(box) {
    this.from = element("input", { type: "datetime-local", step: "1", "aria-label": "From" });
    this.to = element("input", { type: "datetime-local", step: "1", "aria-label": "To" });
    const wrong = element("p", { class: "trouble", hidden: true, text: "The start must lie before the end." });
    const form = element("form", { class: "absolute" },
      element("label", {}, "From ", this.from), element("label", {}, "To ", this.to),
      element("button", { type: "submit", text: "Apply" }), wrong);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const [from, to] = [Date.parse(this.from.value), Date.parse(this.to.value)];
      wrong.hidden = from < to;
      if (from < to) this.choose({ from: String(from), to: String(to) });
    });
    const list = element("div", { class: "ranges" });
    for (const [from, name] of RANGES) {
      list.append(element("button", {
        type: "button", text: name, "data-from": from,
        on: { click: () => this.choose({ from, to: "now" }) },
      }));
    }
    box.append(list, form);
    this.drop.addEventListener("toggle", () => {
      const range = this.drop.open && resolve(this.state, this.nowMs());
      if (range) { this.from.value = local(range.from); this.to.value = local(range.to); }
    });
  }

  choose(range) {
    this.drop.open = false;
    this.summary.focus();
    this.change(range);
  }

  zoom() {
    const range = resolve(this.state, this.nowMs());
    if (!range) return;
    const half = Math.floor((range.to - range.from) / 2);
    const to = Math.min(range.to + half, this.nowMs());
    this.change({ from: String(to - 4 * half), to: String(to) });
  }

  show() { this.summary.textContent = describe(this.state); }
}
