// Lines over time, with uPlot. The axis, the crosshair, zooming and annotations are shared with the
// state timeline.

import { element } from "./dom.js";
import { color, display, formatNumber, formatTime, lineColor } from "./format.js";
import { REDUCERS, aligned, series } from "./frames.js";
import * as tooltip from "./tooltip.js";

/* global uPlot */

const SYNC = "periscope";
const FONT = "12px system-ui, sans-serif";

const BINARY = Array.from({ length: 60 }, (_, index) => 2 ** index);

function style(name) { return getComputedStyle(document.body).getPropertyValue(name).trim(); }

// Labels of the time axis: as much of the date as is needed.
function timeLabels(_, splits, _axis, _space, step) {
  let day = null;
  return splits.map((ms) => {
    const text = formatTime(ms);
    const [date, time] = [text.slice(5, 10), text.slice(11)];
    if (step >= 86_400_000) return date;
    const clock = step < 60_000 ? time : time.slice(0, 5);
    const first = day !== null && date !== day;
    day = date;
    return first || time === "00:00:00" ? date : clock;
  });
}

export function axes(yAxis) {
  const grid = { stroke: style("--grid"), width: 1 };
  const base = { stroke: style("--dim"), font: FONT, ticks: { stroke: style("--grid"), size: 4, width: 1 }, grid };
  return [
    { ...base, values: timeLabels, space: 70, size: 28, gap: 3 },
    { ...base, ...yAxis },
  ];
}

// Wide enough for the longest label.
export function labelWidth(context, labels) {
  context.font = FONT;
  return Math.ceil(Math.max(0, ...labels.map((label) => context.measureText(label).width)));
}

function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.time, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.strokeStyle = mark.color;
    ctx.fillStyle = mark.color;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const size = 5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x - size, bbox.top + bbox.height);
    ctx.lineTo(x + size, bbox.top + bbox.height);
    ctx.lineTo(x, bbox.top + bbox.height - size);
    ctx.fill();
  }
  ctx.restore();
}

function drawThresholds(plot, settings) {
  if ((settings.custom?.thresholdsStyle?.mode || "off") === "off") return;
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.setLineDash([8, 6]);
  for (const step of settings.thresholds?.steps || []) {
    if (step.value === null) continue;
    const y = plot.valToPos(step.value, "y", true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.strokeStyle = color(step.color);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}

// Marks within a few pixels of `left`.
function marksAt(plot, marks, left) {
  return marks.filter((mark) => Math.abs(plot.valToPos(mark.time, "x") - left) < 6);
}

// Keeps a plot in `host` at its size, with pointer and keys; `describe(plot)` returns the time and
// the lines of the tooltip, or null.
export function mount(host, context, options, data, describe) {
  const size = () => ({ width: Math.max(50, host.clientWidth), height: Math.max(40, host.clientHeight) });
  const draw = options.hooks?.draw || [];
  const plot = new uPlot({
    ...size(),
    ms: 1,
    legend: { show: false },
    padding: [8, 22, 0, 0],
    ...options,
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false },
      sync: { key: SYNC, setSeries: false, scales: ["x", null],
        filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
      ...options.cursor,
    },
    hooks: {
      draw: [...draw, (self) => drawMarks(self, context.marks())],
      setSelect: [(self) => {
        if (self.select.width < 5) return;
        const from = self.posToVal(self.select.left, "x");
        const to = self.posToVal(self.select.left + self.select.width, "x");
        self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        tooltip.hide();
        context.zoom(Math.floor(from), Math.ceil(to));
      }],
    },
  }, data, host);
  const point = () => {
    const told = plot.cursor.left >= 0 ? describe(plot) : null;
    if (!told) { tooltip.hide(); return; }
    const place = plot.over.getBoundingClientRect();
    tooltip.show(place.left + plot.cursor.left, place.top + Math.max(0, plot.cursor.top), told.time, told.lines,
      marksAt(plot, context.marks(), plot.cursor.left));
  };
  plot.over.addEventListener("mousemove", () => requestAnimationFrame(point));
  plot.over.addEventListener("mouseleave", tooltip.hide);
  host.onkeydown = (event) => keys(plot, event, point);
  host.onblur = tooltip.hide;
  const watch = new ResizeObserver(() => { if (host.clientWidth > 0) plot.setSize(size()); });
  watch.observe(host);
  return { plot, destroy: () => { watch.disconnect(); plot.destroy(); tooltip.hide(); } };
}

function keys(plot, event, point) {
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key === "Escape") { tooltip.hide(); return; }
  if (!(event.key in steps)) return;
  event.preventDefault();
  const width = plot.over.clientWidth;
  const left = plot.cursor.left >= 0 ? plot.cursor.left : width / 2;
  const wide = event.shiftKey ? 10 : 1;
  const next = Math.min(width - 1, Math.max(0, left + steps[event.key] * wide * Math.max(1, width / 200)));
  plot.setCursor({ left: next, top: plot.over.clientHeight / 2 });
  point();
}

export class Chart {
  constructor(body, panel, context) {
    this.panel = panel;
    this.context = context;
    this.host = element("div", { class: "plot", tabindex: "0", role: "img" });
    this.legend = element("div", { class: "legend" });
    body.append(this.host, this.legend);
    this.hidden = new Set();
    this.mounted = null;
    this.shape = "";
  }

  update(frames, range) {
    this.range = range;
    const empty = (one) => one.values.every((value) => value === null);
    // Series without a value come last: they would push the others out of the legend.
    const all = series(this.panel, frames);
    this.series = [...all.filter((one) => !empty(one)), ...all.filter(empty)];
    if (all.every(empty)) return false;
    this.data = aligned(this.series);
    const shape = JSON.stringify(this.series.map((one) => one.key));
    if (shape === this.shape && this.mounted) this.mounted.plot.setData(this.data);
    else this.build(shape);
    this.showLegend();
    this.host.setAttribute("aria-label", this.panel.title + ": "
      + this.series.slice(0, 10).map((one) => one.name + " " + this.text("lastNotNull", one)).join(", "));
    return true;
  }

  build(shape) {
    this.destroy();
    this.shape = shape;
    const settings = this.series[0].settings;
    const unit = (value) => formatNumber(value, settings.unit, undefined);
    const options = {
      scales: {
        x: { time: true, range: () => [this.range.from, this.range.to] },
        y: { range: (_, low, high) => this.limits(low, high, settings) },
      },
      axes: axes({
        values: (_, splits) => splits.map(unit),
        size: (self, labels) => labelWidth(self.ctx, labels || []) + 14,
        space: 32, gap: 4,
        // Steps of 1000 would be crooked numbers of binary bytes.
        ...(settings.unit === "bytes" ? { incrs: BINARY } : {}),
      }),
      series: [{}, ...this.series.map((one, index) => this.line(one, index))],
      hooks: { draw: [(self) => drawThresholds(self, settings)] },
      cursor: { points: { size: 6 } },
    };
    this.mounted = mount(this.host, this.context, options, this.data, (plot) => this.describe(plot));
  }

  line(one, index) {
    const stroke = lineColor(index);
    const custom = one.settings.custom || {};
    return {
      label: one.name,
      show: !this.hidden.has(one.key),
      stroke,
      width: Math.max(1.25, custom.lineWidth || 1),
      fill: this.series.length <= 4 && custom.fillOpacity ? stroke + "14" : undefined,
      points: { size: custom.pointSize || 4 },
    };
  }

  limits(low, high, settings) {
    if (low === null || high === null) return [0, 1];
    const { min, max } = settings;
    let [from, to] = uPlot.rangeNum(Math.min(low, min ?? low), Math.max(high, max ?? high), 0.1, true);
    if (min !== undefined) from = min;
    if (max !== undefined) to = max;
    return from < to ? [from, to] : [from, from + 1];
  }

  describe(plot) {
    const index = plot.cursor.idx;
    if (index === null || index === undefined) return null;
    const time = this.data[0][index];
    const lines = [];
    this.series.forEach((one, number) => {
      const value = this.data[number + 1][index];
      if (value === null || value === undefined || this.hidden.has(one.key)) return;
      lines.push({ value, color: lineColor(number), name: one.name, text: display(value, one.settings).text });
    });
    lines.sort((a, b) => b.value - a.value);
    return { time, lines };
  }

  text(reduce, one) {
    const value = REDUCERS[reduce](one.values);
    return value === null ? "–" : display(value, one.settings).text;
  }

  showLegend() {
    const rows = this.series.map((one, index) => {
      const mark = element("i");
      mark.style.background = lineColor(index);
      const button = element("button", {
        type: "button", "aria-pressed": String(!this.hidden.has(one.key)), title: "Show or hide",
        on: { click: () => this.toggle(index) },
      }, mark, element("bdi", { text: one.name }));
      return element("tr", {}, element("th", { scope: "row" }, button),
        element("td", { text: this.text("lastNotNull", one) }),
        element("td", { text: this.text("max", one) }));
    });
    const place = this.legend.scrollTop;
    const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
    this.legend.replaceChildren(element("table", {},
      element("thead", {}, element("tr", {}, element("th", { text: "Name" }), element("th", { text: "Last" }),
        element("th", { text: "Max" }))),
      element("tbody", {}, ...rows)));
    this.legend.scrollTop = place;
    if (focused >= 0) this.legend.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  toggle(index) {
    const { key } = this.series[index];
    if (!this.hidden.delete(key)) this.hidden.add(key);
    this.mounted.plot.setSeries(index + 1, { show: !this.hidden.has(key) });
    this.showLegend();
  }

  redraw() { if (this.mounted) this.mounted.plot.redraw(false); }

  destroy() {
    if (this.mounted) this.mounted.destroy();
    this.mounted = null;
    this.shape = "";
  }
}
