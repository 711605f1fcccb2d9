// Starts the viewer: reads the address, builds the page, keeps both in step.

import * as api from "./api.js";
import { Board } from "./board.js";
import { element } from "./dom.js";
import { clean, onThemeChange } from "./format.js";
import { TimeControls, resolve } from "./time.js";
import { Variables } from "./variables.js";

function byId(id) { return document.getElementById(id); }

function notice(text) {
  byId("notice").textContent = text === null ? "" : clean(text);
  byId("notice").hidden = text === null;
}

// What the address says: Grafana's own parameters, so that its links work here.
function read(model) {
  const given = new URLSearchParams(location.search);
  const chosen = {};
  for (const [name, value] of given) {
    if (!name.startsWith("var-") || value === "$__all") continue;
    (chosen[name.slice(4)] ||= []).push(value);
  }
  const range = { from: given.get("from") || model.time?.from || "now-1h", to: given.get("to") || model.time?.to || "now" };
  const valid = resolve(range, Date.now()) !== null;
  const refresh = given.has("refresh") ? given.get("refresh") : model.refresh || "";
  const state = {
    ...(valid ? range : { from: "now-1h", to: "now" }),
    refresh: /^([0-9]{1,4}[smh])?$/.test(refresh) ? refresh : "",
    view: Number(/\d+$/.exec(given.get("viewPanel") || "")) || null,
  };
  return { state, chosen, wrong: !valid };
}

class Page {
  constructor(model, list) {
    this.model = model;
    this.list = list;
    const { state, chosen, wrong } = read(model);
    this.state = state;
    this.board = new Board(byId("board"), model, state, {
      zoom: (from, to) => this.change({ from: String(from), to: String(to) }),
      view: (id) => this.change({ view: id }),
      lost: (is) => { byId("lost").hidden = !is; },
      notice,
    });
    this.variables = new Variables(byId("variables"), model, chosen, () => this.changed());
    this.board.variables = this.variables;
    this.times = new TimeControls(byId("times"), state, (change) => this.change(change),
      () => this.board.refresh(), api.now);
    this.placeMarks();
    this.write();
    this.board.refresh();
    if (wrong) notice("The address names no time range; this is the last hour.");
    addEventListener("popstate", () => location.reload());
    onThemeChange(() => this.board.restyle());
  }

  placeMarks() {
    for (const { name } of this.board.annotations()) {
      const input = element("input", { type: "checkbox", checked: this.board.enabled.has(name) });
      input.addEventListener("change", () => {
        if (input.checked) this.board.enabled.add(name); else this.board.enabled.delete(name);
        this.board.refresh();
      });
      byId("marks").append(element("label", { class: "option" }, input, name));
    }
  }

  change(change) {
    Object.assign(this.state, change);
    this.times.show();
    this.write("pushState");
    if ("view" in change) {
      this.board.showView();
      scrollTo(0, 0);
    }
    this.board.refresh();
  }

  // Several choices in a row are one question.
  changed() {
    this.write("pushState");
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.board.refresh(), 300);
  }

  // Each choice is a step of the browser's history.
  write(how = "replaceState") {
    const { from, to, refresh, view } = this.state;
    const shared = [["from", from], ["to", to], ...this.variables.pairs()];
    const own = [...shared, ["refresh", refresh], ...(view ? [["viewPanel", String(view)]] : [])];
    history[how](null, "", "?" + new URLSearchParams(own));
    const query = "?" + new URLSearchParams(shared);
    byId("dashboards").replaceChildren(...this.list.map(({ uid, title }) => element("a", {
      href: "/d/" + encodeURIComponent(uid) + query, text: title,
      "aria-current": uid === this.model.uid ? "page" : null,
    })));
  }
}

async function start() {
  const uid = decodeURIComponent(location.pathname.split("/")[2] || "");
  for (;;) {
    try {
      const [model, { dashboards }] = await Promise.all([api.dashboard(uid), api.dashboards()]);
      if (model.error) { notice(model.error.message + ". " + model.error.hint); return; }
      byId("lost").hidden = true;
      new Page(model, dashboards || []);
      return;
    } catch (error) {
      if (!(error instanceof api.Unreachable)) throw error;
      byId("lost").hidden = false;
      await new Promise((resolved) => setTimeout(resolved, 3000));
    }
  }
}

start();
