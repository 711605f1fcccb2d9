// Small helpers for the page. Texts only ever become textContent: nothing is read as HTML.

import { clean } from "./format.js";

export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") made.textContent = clean(value);
    else if (name === "class") made.className = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, clean(value));
  }
  made.append(...children);
  return made;
}

// Paragraphs, lists and **bold** out of Markdown; everything else stays as it is written.
export function markdown(text) {
  const blocks = clean(text || "").split(/\n{2,}/).filter((block) => block.trim() !== "");
  return blocks.map((block) => {
    const made = element("p");
    block.split(/\*\*(.+?)\*\*/).forEach((part, index) => {
      made.append(index % 2 === 1 ? element("strong", { text: part }) : part);
    });
    return made;
  });
}

// Closes `made` on Escape, on a click elsewhere, and when the focus goes elsewhere.
export function closing(made) {
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !made.open) return;
    made.open = false;
    made.querySelector("summary").focus();
    event.stopPropagation();
  });
  made.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !made.contains(event.relatedTarget)) made.open = false;
  });
  document.addEventListener("pointerdown", (event) => {
    if (!made.contains(event.target)) made.open = false;
  });
  return made;
}

// A button that opens a box below it.
export function dropdown(name, label) {
  const summary = element("summary", { text: label });
  const box = element("div", { class: "box" });
  const made = closing(element("details", { class: "drop", "data-name": name }, summary, box));
  return { made, summary, box };
}
