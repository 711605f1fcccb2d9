// Rows, with units, colours and widths by column; a click on a heading sorts.

import { element, markdown } from "./dom.js";
import { display, field, textOn } from "./format.js";

const SHOWN = 500;
const LONGEST_NAME = 24;

function heading(settings, name) { return settings.displayName || name; }

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return a < b ? -1 : 1;
}

export class Table {
  constructor(body, panel) {
    this.panel = panel;
    this.host = element("div", { class: "rows", tabindex: "0", role: "region", "aria-label": panel.title });
    body.append(this.host);
    this.sort = null;
  }

  update(frames) {
    this.columns = frames.flatMap((frame) => frame.columns);
    this.count = this.columns[0]?.values.length || 0;
    if (this.count === 0) return false;
    this.draw();
    return true;
  }

  draw() {
    const settings = this.columns.map((column) => field(this.panel, column.name));
    const order = [...Array(this.count).keys()];
    if (this.sort) {
      const { values } = this.columns[this.sort.column];
      order.sort((a, b) => compare(values[a], values[b]) * (this.sort.down ? -1 : 1));
    }
    const head = this.columns.map((column, index) => this.head(column, settings[index], index));
    const rows = order.slice(0, SHOWN).map((row) => element("tr", {},
      ...this.columns.map((column, index) => this.cell(column, settings[index], row))));
    const place = [this.host.scrollTop, this.host.scrollLeft];
    const focused = [...this.host.querySelectorAll("button")].indexOf(document.activeElement);
    this.host.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows)));
    if (this.count > SHOWN) {
      this.host.append(element("p", { class: "more", text: (this.count - SHOWN) + " rows more" }));
    }
    [this.host.scrollTop, this.host.scrollLeft] = place;
    if (focused >= 0) this.host.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  head(column, settings, index) {
    const sorted = this.sort?.column === index;
    const sign = sorted ? (this.sort.down ? " ↓" : " ↑") : "";
    const button = element("button", {
      type: "button", text: heading(settings, column.name).replaceAll("_", " ") + sign,
      on: { click: () => {
        this.sort = sorted && this.sort.down ? null : { column: index, down: sorted };
        this.draw();
      } },
    });
    const made = element("th", {
      scope: "col", class: column.kind,
      "aria-sort": sorted ? (this.sort.down ? "descending" : "ascending") : "none",
    }, button);
    if (settings.custom.width) made.style.width = settings.custom.width + "px";
    return made;
  }

  cell(column, settings, row) {
    const value = column.values[row];
    const shown = display(value, settings, column.kind);
    const text = value === null ? "–" : shown.text;
    // Names stay in one line, sentences do not.
    const short = text.length <= LONGEST_NAME ? " short" : "";
    const made = element("td", { class: column.kind + short }, element("bdi", { text }));
    if (settings.custom.cellOptions?.type === "color-background" && !shown.empty) {
      made.style.background = shown.color;
      made.style.color = textOn(shown.color);
    }
    return made;
  }
}

export class Text {
  constructor(body, panel) {
    body.append(element("div", { class: "text" }, ...markdown(panel.options?.content)));
  }

  update() { return true; }
}
