// One lane of states for every series, on the same axis, crosshair and marks as the charts.

import { axes, labelWidth, mount } from "./chart.js";
import { element } from "./dom.js";
import { display, formatDuration, formatTime, textOn } from "./format.js";
import { series, stretches } from "./frames.js";

const LONGEST_LABEL = 26;

export class Timeline {
  constructor(body, panel, context) {
    this.panel = panel;
    this.context = context;
    this.host = element("div", { class: "plot", tabindex: "0", role: "img" });
    this.legend = element("div", { class: "legend list" });
    body.append(this.host, this.legend);
    this.mounted = null;
    this.shape = "";
  }

  update(frames, range) {
    this.range = range;
    this.lanes = series(this.panel, frames).map((one) => ({
      name: one.name,
      stretches: stretches(one, range, one.settings.custom?.spanNulls).map((stretch) => ({
        ...stretch, ...display(stretch.value, one.settings),
      })),
    })).filter((lane) => lane.stretches.length > 0);
    if (this.lanes.length === 0) return false;
    this.host.style.minHeight = Math.min(2000, this.lanes.length * 13 + 32) + "px";
    const shape = JSON.stringify(this.lanes.map((lane) => lane.name));
    const data = [[range.from, range.to], [null, null]];
    if (shape === this.shape && this.mounted) this.mounted.plot.setData(data);
    else this.build(shape, data);
    this.showLegend();
    this.host.setAttribute("aria-label", this.panel.title + ": "
      + this.lanes.slice(0, 10).map((lane) => lane.name + " " + lane.stretches.at(-1).text).join(", "));
    return true;
  }

  build(shape, data) {
    this.destroy();
    this.shape = shape;
    const count = this.lanes.length;
    const short = this.lanes.map(({ name }) => {
      const characters = Array.from(name);
      return characters.length > LONGEST_LABEL ? characters.slice(0, LONGEST_LABEL).join("") + "…" : name;
    });
    const yAxis = {
      // The first lane is the topmost.
      splits: () => short.map((_, index) => count - index - 0.5),
      values: () => short,
      size: (self) => Math.min(labelWidth(self.ctx, short) + 14, self.width * 0.4),
      grid: { show: false }, ticks: { show: false }, gap: 4,
    };
    const options = {
      scales: { x: { time: true, range: () => [this.range.from, this.range.to] }, y: { range: [0, count] } },
      axes: axes(yAxis),
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(self) => this.draw(self)] },
      cursor: { points: { show: false } },
    };
    this.mounted = mount(this.host, this.context, options, data, (plot) => this.describe(plot));
  }

  draw(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    const height = bbox.height / this.lanes.length;
    const inner = Math.max(2 * ratio, height * 0.84);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.font = Math.min(12 * ratio, inner * 0.8) + "px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    this.lanes.forEach((lane, index) => {
      const top = bbox.top + index * height + (height - inner) / 2;
      for (const stretch of lane.stretches) {
        const left = plot.valToPos(stretch.from, "x", true);
        const width = Math.max(ratio, plot.valToPos(stretch.to, "x", true) - left);
        ctx.fillStyle = stretch.color;
        ctx.fillRect(left, top, width, inner);
        if (inner < 10 * ratio || ctx.measureText(stretch.text).width + 10 * ratio > width) continue;
        ctx.fillStyle = textOn(stretch.color);
        ctx.fillText(stretch.text, left + 5 * ratio, top + inner / 2);
      }
    });
    ctx.restore();
  }

  describe(plot) {
    const time = plot.posToVal(plot.cursor.left, "x");
    const index = Math.floor(plot.cursor.top / (plot.over.clientHeight / this.lanes.length));
    const lane = this.lanes[Math.min(Math.max(0, index), this.lanes.length - 1)];
    const stretch = lane.stretches.find(({ from, to }) => from <= time && time < to);
    if (!stretch) return { time, lines: [{ color: "transparent", name: lane.name, text: "no samples" }] };
    return { time, lines: [
      { color: stretch.color, name: lane.name, text: stretch.text },
      { color: "transparent", name: formatTime(stretch.from) + " to " + formatTime(stretch.to),
        text: formatDuration(stretch.to - stretch.from) },
    ] };
  }

  showLegend() {
    const states = new Map();
    for (const lane of this.lanes) for (const one of lane.stretches) states.set(one.text, one.color);
    this.legend.replaceChildren(...[...states].map(([text, color]) => {
      const mark = element("i");
      mark.style.background = color;
      return element("span", {}, mark, element("bdi", { text }));
    }));
  }

  redraw() { if (this.mounted) this.mounted.plot.redraw(false); }

  destroy() {
    if (this.mounted) this.mounted.destroy();
    this.mounted = null;
    this.shape = "";
  }
}
