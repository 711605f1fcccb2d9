// The box beside the pointer, one for the whole page.

import { element } from "./dom.js";
import { formatTime } from "./format.js";

const SHOWN = 15;

const box = element("div", { class: "tooltip", role: "status", hidden: true });
document.body.append(box);

export function hide() { box.hidden = true; }

// `lines` are { color, name, text }; `marks` are annotations at that time.
export function show(x, y, time, lines, marks = []) {
  const shown = lines.slice(0, SHOWN).map(({ color, name, text }) => {
    const mark = element("i");
    mark.style.background = color;
    return element("div", { class: "line" }, mark, element("bdi", { text: name }), element("b", { text }));
  });
  if (lines.length > SHOWN) shown.push(element("div", { text: (lines.length - SHOWN) + " more" }));
  const notes = marks.slice(0, 5).map((mark) => {
    const sign = element("i");
    sign.style.background = mark.color;
    return element("div", { class: "note" }, sign, element("bdi", { text: mark.text }));
  });
  const head = typeof time === "number" ? formatTime(time) : time;
  box.replaceChildren(element("div", { class: "time", text: head }), ...shown, ...notes);
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? Math.max(4, x - 16 - width) : x + 16;
  const top = Math.max(4, Math.min(y + 16, innerHeight - height - 4));
  box.style.left = left + "px";
  box.style.top = top + "px";
}
