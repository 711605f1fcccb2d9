// One value for every series: tiles, bars, gauges.

import { element } from "./dom.js";
import { display, textOn } from "./format.js";
import { reducer, series } from "./frames.js";

const MOST = 200;

function reduced(panel, frames) {
  const reduce = reducer(panel);
  return series(panel, frames).map((one) => {
    const value = reduce(one.values);
    return { name: one.name, value, settings: one.settings, ...display(value, one.settings) };
  });
}

function more(all) {
  return all.length > MOST ? [element("p", { class: "more", text: (all.length - MOST) + " more" })] : [];
}

export class Stat {
  constructor(body, panel) {
    this.panel = panel;
    this.host = element("div", { class: "tiles" });
    body.append(this.host);
  }

  update(frames) {
    const all = reduced(this.panel, frames);
    const plain = this.panel.options?.colorMode === "value" || this.panel.options?.colorMode === "none";
    this.host.replaceChildren(...all.slice(0, MOST).map((one) => {
      const tile = element("div", { class: "tile" + (plain ? " plain" : "") },
        element("bdi", { class: "name", text: one.name }), element("b", { class: "value", text: one.text }));
      if (plain) tile.lastChild.style.color = one.color;
      else {
        tile.style.background = one.color;
        tile.style.color = textOn(one.color);
      }
      return tile;
    }), ...more(all));
    this.host.classList.toggle("single", all.length === 1);
    return all.length > 0;
  }
}

// Where the scale of bars and gauges ends: what the panel says, else the largest value.
function ends(all) {
  const numbers = all.map((one) => one.value).filter((value) => typeof value === "number");
  const { min, max } = all[0].settings;
  const low = min ?? Math.min(0, ...numbers);
  const high = max ?? Math.max(low, ...numbers);
  return { low, high: high > low ? high : low + 1 };
}

function share(value, { low, high }) {
  return typeof value === "number" ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0;
}

export class BarGauge {
  constructor(body, panel) {
    this.panel = panel;
    this.host = element("div", { class: "bars" });
    body.append(this.host);
  }

  update(frames) {
    const all = reduced(this.panel, frames);
    if (all.length === 0) return false;
    const scale = ends(all);
    this.host.replaceChildren(...all.slice(0, MOST).map((one) => {
      const bar = element("i");
      bar.style.width = 100 * share(one.value, scale) + "%";
      bar.style.background = one.color;
      const value = element("b", { text: one.text, class: one.empty ? "nothing" : "" });
      if (!one.empty) value.style.color = one.color;
      return element("div", { class: "bar-row" },
        element("bdi", { class: "name", text: one.name, title: one.name }), value,
        element("div", { class: "track" }, bar));
    }), ...more(all));
    return true;
  }
}

export class Gauge {
  constructor(body, panel) {
    this.panel = panel;
    this.host = element("div", { class: "tiles gauges" });
    body.append(this.host);
  }

  update(frames) {
    const all = reduced(this.panel, frames);
    if (all.length === 0) return false;
    // Without a scale of its own a gauge shows 0 to 100, as in Grafana.
    const { min, max } = all[0].settings;
    const scale = { low: min ?? 0, high: max ?? 100 };
    this.host.replaceChildren(...all.slice(0, MOST).map((one) => {
      const dial = element("div", { class: "dial" });
      const angle = 240 * share(one.value, scale);
      dial.style.background =
        `conic-gradient(from 240deg, ${one.color} ${angle}deg, var(--track) ${angle}deg 240deg, transparent 240deg)`;
      return element("div", { class: "gauge", role: "img", "aria-label": one.name + " " + one.text }, dial,
        element("b", { class: "value", text: one.text }), element("bdi", { class: "name", text: one.name }));
    }), ...more(all));
    return true;
  }
}
