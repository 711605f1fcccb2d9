// Variables: lists of values out of the database, each under the choice of those before it.

import { dropdown, element } from "./dom.js";
import { clean } from "./format.js";

const SHOWN = 500;

export class Variables {
  // `chosen` holds lists by name; a name without a list means all values.
  constructor(parent, model, chosen, change) {
    this.change = change;
    this.all = (model.templating?.list || [])
      .filter((one) => one.type === "query")
      .map((one) => ({
        name: one.name,
        label: one.label || one.name,
        chosen: chosen[one.name] || null,
        options: [],
        trouble: null,
        cut: false,
      }));
    for (const one of this.all) {
      const { made, summary, box } = dropdown("var-" + one.name, one.label);
      one.summary = summary;
      one.box = box;
      made.addEventListener("toggle", () => { if (made.open) this.fill(one); });
      parent.append(made);
      this.show(one);
    }
  }

  // Asks for the values one after the other; `ask(name, values)` returns { frame } or { error }.
  // Returns the values of all, or the first error.
  async load(ask) {
    const values = {};
    let trouble = null;
    for (const one of this.all) {
      const result = trouble ? { error: trouble } : await ask(one.name, values);
      if (result.error) {
        trouble = result.error;
        one.trouble = trouble;
      } else {
        one.trouble = null;
        one.cut = result.frame.cut;
        one.options = result.frame.columns[0].values.filter((value) => typeof value === "string");
      }
      values[one.name] = one.chosen || one.options;
      this.show(one);
    }
    return { values, trouble };
  }

  show(one) {
    let text = "All";
    if (one.chosen) {
      text = one.chosen.length > 2 ? one.chosen.length + " chosen" : one.chosen.join(" + ");
    } else if (one.options.length === 1) {
      text = one.options[0] === "none" ? "none" : "All (" + one.options[0] + ")";
    }
    one.summary.replaceChildren(
      element("span", { class: "label", text: one.label }), " ", element("bdi", { text: clean(text, 60) }));
    one.summary.title = one.trouble ? clean(one.trouble.message) : "";
    one.summary.classList.toggle("bad", Boolean(one.trouble));
  }

  fill(one) {
    const gone = (one.chosen || []).filter((value) => !one.options.includes(value));
    const filter = element("input", { type: "search", placeholder: "Filter", "aria-label": "Filter " + one.label });
    const list = element("div", { class: "options" });
    const all = this.option("All", one.chosen === null, () => { one.chosen = null; this.apply(one, list); });
    all.querySelector("input").dataset.all = "";
    const draw = () => {
      const wanted = filter.value.toLowerCase();
      const fitting = [...gone, ...one.options].filter((value) => value.toLowerCase().includes(wanted));
      list.replaceChildren(...fitting.slice(0, SHOWN).map((value) => {
        const text = gone.includes(value) ? value + " (no samples in this range)" : value;
        const made = this.option(text, one.chosen !== null && one.chosen.includes(value), (checked) => {
          const chosen = new Set(one.chosen || []);
          if (checked) chosen.add(value); else chosen.delete(value);
          one.chosen = chosen.size > 0 ? [...chosen] : null;
          this.apply(one, list);
        });
        made.querySelector("input").value = value;
        return made;
      }));
      const hidden = fitting.length - SHOWN;
      if (hidden > 0) list.append(element("p", { text: hidden + " more: filter them" }));
      if (one.cut) list.append(element("p", { text: "There are more values than are read." }));
      if (one.trouble) list.append(element("p", { class: "trouble", text: one.trouble.message }));
    };
    filter.addEventListener("input", draw);
    one.box.replaceChildren(filter, all, list);
    draw();
    filter.focus();
  }

  option(text, checked, change) {
    const input = element("input", { type: "checkbox", checked });
    input.addEventListener("change", () => change(input.checked));
    return element("label", { class: "option" }, input, element("bdi", { text }));
  }

  apply(one, list) {
    one.box.querySelector("input[data-all]").checked = one.chosen === null;
    for (const input of list.querySelectorAll("input")) {
      input.checked = one.chosen !== null && one.chosen.includes(input.value);
    }
    this.show(one);
    this.change();
  }

  // For the address: pairs of `var-NAME` and value.
  pairs() {
    return this.all.flatMap((one) => (one.chosen || []).map((value) => ["var-" + one.name, value]));
  }
}
