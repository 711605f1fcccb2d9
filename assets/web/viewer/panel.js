// One panel: its frame, its description, what it shows, and what keeps it from showing it.

import { Chart } from "./chart.js";
import { closing, element, markdown } from "./dom.js";
import { unsupported } from "./support.js";
import { Table, Text } from "./table.js";
import { Timeline } from "./timeline.js";
import { BarGauge, Gauge, Stat } from "./values.js";

const KINDS = {
  timeseries: Chart, "state-timeline": Timeline, stat: Stat, bargauge: BarGauge, gauge: Gauge, table: Table, text: Text,
};

export class Panel {
  constructor(model, context) {
    this.model = model;
    this.queries = (model.targets || []).map((target) => ({ panel: model.id, refId: target.refId }));
    this.stale = true;
    this.visible = false;
    this.body = element("div", { class: "body" });
    this.message = element("div", { class: "message", role: "status", hidden: true });
    this.notes = element("ul", { class: "notes" });
    this.made = element("section", {
      class: "panel kind-" + model.type, "data-panel": String(model.id), "aria-label": model.title,
    }, this.head(context), this.notes, this.body, this.message);
    const missing = unsupported(model);
    const Kind = KINDS[model.type];
    this.note("unsupported", missing.length > 0 ? "Not shown here, but in Grafana: " + missing.join(", ") + "." : null);
    this.view = Kind ? new Kind(this.body, model, context) : null;
  }

  head(context) {
    const title = element("button", {
      type: "button", class: "title", text: this.model.title,
      title: this.model.title + ": alone, or back",
      on: { click: () => context.view(this.model.id) },
    });
    const head = element("header", {}, element("h3", {}, title));
    if (this.model.description) {
      const about = closing(element("details", { class: "about" },
        element("summary", { text: "i", "aria-label": "About " + this.model.title, title: "What this shows" }),
        element("div", { class: "box" }, ...markdown(this.model.description))));
      head.append(about);
    }
    return head;
  }

  note(kind, text) {
    this.notes.querySelector("." + kind)?.remove();
    if (text) this.notes.append(element("li", { class: kind, text }));
  }

  points() { return Math.round(Math.max(50, this.body.clientWidth || 500)); }

  loading(is) { this.made.classList.toggle("loading", is); }

  // Shows the results of all queries for `range`; an error of one is an error of the panel.
  update(results, range) {
    this.stale = false;
    this.range = range;
    const trouble = results.find((result) => result.error)?.error;
    if (trouble) { this.fail(trouble); return; }
    this.frames = results.map((result) => result.frame);
    this.note("cut", this.frames.some((frame) => frame.cut)
      ? "Not everything: the answer is too large. Choose fewer values or a shorter range." : null);
    try {
      this.draw();
    } catch (error) {
      // A fault of the viewer: the other panels go on.
      console.error(error);
      this.fail({ kind: "viewer", message: "the viewer cannot draw this: " + error.message,
        hint: "Please report it with the name of the panel; Grafana shows the same dashboard." });
    }
  }

  draw() {
    if (!this.view || !this.range) return;
    this.made.classList.remove("failed");
    this.body.hidden = false;
    this.message.hidden = true;
    const shown = this.view.update(this.frames || [], this.range);
    this.made.classList.toggle("empty", !shown);
    if (!shown) {
      const text = this.model.fieldConfig?.defaults?.noValue || "no data";
      this.body.hidden = true;
      this.message.hidden = false;
      this.message.replaceChildren(element("p", { class: "no-value", text }));
    }
  }

  fail({ message, hint, sql, kind }) {
    this.trouble = kind;
    this.frames = null;
    this.made.classList.add("failed");
    this.made.classList.remove("empty");
    this.body.hidden = true;
    this.message.hidden = false;
    const open = this.message.querySelector("details")?.open;
    const parts = [element("p", { class: "trouble", text: message }), element("p", { text: hint || "" })];
    if (sql) {
      parts.push(element("details", { open }, element("summary", { text: "Statement" }),
        element("pre", { tabindex: "0", text: sql })));
    }
    this.message.replaceChildren(...parts);
  }

  redraw() { if (this.frames) this.view?.redraw?.(); }

  // Colours are read again.
  restyle() {
    if (!this.frames) return;
    this.view?.destroy?.();
    this.draw();
  }
}
