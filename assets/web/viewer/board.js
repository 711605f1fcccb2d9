// The dashboard: places its panels and asks for what they show, again and again.

import * as api from "./api.js";
import { element } from "./dom.js";
import { clean, color } from "./format.js";
import { Panel } from "./panel.js";
import { isRelative, refreshMs, resolve } from "./time.js";

// Time after which panels without a database try again, also without a refresh.
const RETRY_MS = 5_000;

export class Board {
  // `state` is { from, to, refresh, view }; `variables` is set before the first refresh.
  constructor(parent, model, state, context) {
    this.model = model;
    this.uid = model.uid;
    this.state = state;
    this.context = context;
    this.round = 0;
    this.marks = [];
    this.scope = null;
    this.enabled = new Set(this.annotations().filter((one) => one.enable).map((one) => one.name));
    this.panels = [];
    this.watch = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "300px 0px" });
    this.place(parent);
    document.addEventListener("visibilitychange", () => { if (!document.hidden && this.late) this.refresh(); });
  }

  annotations() { return (this.model.annotations?.list || []).filter((one) => one.target); }

  place(parent) {
    const context = {
      marks: () => this.marks,
      zoom: this.context.zoom,
      view: (id) => this.context.view(this.state.view === id ? null : id),
    };
    let section = null;
    const start = (title) => {
      const grid = element("div", { class: "grid" });
      const made = title === null ? element("div", { class: "group" }, grid)
        : element("details", { class: "group", open: true }, element("summary", {}, element("h2", { text: title })), grid);
      parent.append(made);
      return { grid, top: 0 };
    };
    for (const model of this.model.panels) {
      const { x, y, w, h } = model.gridPos;
      if (model.type === "row") {
        section = start(model.title);
        section.top = y + 1;
        continue;
      }
      section = section || start(null);
      const panel = new Panel(model, context);
      panel.made.style.gridColumn = x + 1 + " / span " + w;
      panel.made.style.gridRow = y - section.top + 1 + " / span " + h;
      section.grid.append(panel.made);
      this.panels.push(panel);
      this.watch.observe(panel.made);
    }
    this.parent = parent;
    this.showView();
  }

  showView() {
    const { view } = this.state;
    const known = this.panels.some((panel) => panel.model.id === view);
    this.parent.classList.toggle("alone", known);
    for (const panel of this.panels) panel.made.classList.toggle("viewed", known && panel.model.id === view);
  }

  seen(entries) {
    for (const entry of entries) {
      const panel = this.panels.find((one) => one.made === entry.target);
      panel.visible = entry.isIntersecting;
      if (panel.visible && panel.stale && this.scope) {
        this.load(panel, this.scope, this.round).catch((error) => this.gone(error, this.round));
      }
    }
  }

  // Asks for everything that can be seen; a later round ends an earlier one.
  async refresh() {
    clearTimeout(this.timer);
    this.late = document.hidden;
    if (this.late) return;
    this.round += 1;
    const round = this.round;
    const range = resolve(this.state, api.now());
    this.context.notice(range ? null : "The address names no time range: choose one.");
    if (!range) return;
    range.now = api.now();
    this.away = false;
    try {
      const { values, trouble } = await this.variables.load((name, parents) => this.variable(name, range, parents));
      if (round !== this.round) return;
      this.scope = trouble ? null : { range, values };
      for (const panel of this.panels) panel.stale = true;
      if (trouble) this.fail(trouble);
      else await Promise.all([this.loadMarks(round), ...this.panels
        .filter((panel) => panel.visible).map((panel) => this.load(panel, this.scope, round))]);
      if (round === this.round) this.context.lost(false);
    } catch (error) {
      this.gone(error, round);
    }
    if (round === this.round) this.again();
  }

  // periscope itself does not answer: what stands on the page is old.
  gone(error, round) {
    if (!(error instanceof api.Unreachable)) throw error;
    if (round !== this.round) return;
    this.away = true;
    this.context.lost(true);
  }

  again() {
    const own = refreshMs(this.state.refresh);
    // What lies in the past does not change.
    const wait = own > 0 && isRelative(this.state) ? own : null;
    if (this.away) this.timer = setTimeout(() => this.refresh(), Math.min(wait ?? RETRY_MS, RETRY_MS));
    else if (wait !== null) this.timer = setTimeout(() => this.refresh(), wait);
  }

  question(range, values, queries, points) {
    return api.query(this.uid, { from: range.from, to: range.to, points, values, queries });
  }

  async variable(name, range, values) {
    const [result] = await this.question(range, values, [{ variable: name }]);
    return result;
  }

  fail(trouble) {
    this.noteAway(trouble);
    for (const panel of this.panels) panel.fail(trouble);
  }

  noteAway(trouble) { if (trouble.kind === "away" || trouble.kind === "slow") this.away = true; }

  async load(panel, { range, values }, round) {
    if (panel.queries.length === 0) { panel.update([], range); return; }
    panel.loading(true);
    try {
      const results = await this.question(range, values, panel.queries, panel.points());
      if (round !== this.round) return;
      for (const { error } of results) if (error) this.noteAway(error);
      panel.update(results, range);
    } finally {
      panel.loading(false);
    }
  }

  async loadMarks(round) {
    const wanted = this.annotations().filter((one) => this.enabled.has(one.name));
    let marks = [];
    const notes = [];
    if (wanted.length > 0) {
      const { range, values } = this.scope;
      const queries = wanted.map((one) => ({ annotation: one.name }));
      const results = await this.question(range, values, queries);
      results.forEach((result, index) => {
        const { name, iconColor } = wanted[index];
        if (result.error) notes.push(name + ": " + result.error.message);
        else marks.push(...read(result.frame, color(iconColor)));
      });
    }
    if (round !== this.round) return;
    marks = marks.sort((a, b) => a.time - b.time);
    this.context.notice(notes.length > 0 ? "Annotations are missing. " + clean(notes.join("; ")) : null);
    const same = JSON.stringify(marks) === JSON.stringify(this.marks);
    this.marks = marks;
    if (!same) for (const panel of this.panels) panel.redraw();
  }

  restyle() { for (const panel of this.panels) panel.restyle(); }
}

function read(frame, shade) {
  const column = (name) => frame.columns.find((one) => one.name === name)?.values || [];
  const [times, texts, tags] = [column("time"), column("text"), column("tags")];
  return times.map((time, index) => {
    const text = [texts[index], tags[index] && "(" + tags[index] + ")"].filter(Boolean).join(" ");
    return { time, color: shade, text: clean(text, 200) };
  });
}
