// How values look: units, decimals, value mappings, thresholds and colours, as Grafana shows them.
// Pure: nothing here touches the page.

const LONGEST = 2000;

// Control and direction characters could hide or reorder what stands around them.
export function clean(value, longest = LONGEST) {
  const text = String(value).replace(
    /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
  const characters = Array.from(text);
  return characters.length > longest ? characters.slice(0, longest).join("") + "…" : text;
}

// --- numbers ------------------------------------------------------------------------------------

// Digits after the point so that three or so digits say something.
function usualDecimals(value) {
  const size = Math.abs(value);
  if (size === 0 || Number.isInteger(value)) return 0;
  if (size >= 100) return 0;
  if (size >= 10) return 1;
  if (size >= 1) return 2;
  return Math.min(6, 1 - Math.floor(Math.log10(size)));
}

function fixed(value, decimals) {
  const digits = decimals ?? usualDecimals(value);
  const text = value.toFixed(digits);
  // 0.300 is 0.3; what the panel asks for stays.
  return decimals === undefined && text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function scaled(value, decimals, step, names) {
  let number = value;
  let unit = 0;
  while (Math.abs(number) >= step && unit + 1 < names.length) { number /= step; unit += 1; }
  return fixed(number, decimals) + names[unit];
}

// Seconds as a duration: the largest unit that fits.
function duration(seconds, decimals) {
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  const units = [[86400 * 365, "years"], [86400 * 7, "weeks"], [86400, "days"], [3600, "hours"],
    [60, "mins"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
  const [length, name] = units.find(([length]) => size >= length) || units[units.length - 1];
  const text = fixed(seconds / length, decimals);
  return text + " " + (text === "1" ? name.replace(/s$/, name.length > 2 ? "" : "s") : name);
}

const SHORT = ["", " K", " Mil", " Bil", " Tri", " Quadr"];
const BINARY = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"];

const UNITS = {
  none: (value, decimals) => fixed(value, decimals),
  short: (value, decimals) => scaled(value, decimals, 1000, SHORT),
  locale: (value, decimals) =>
    value.toLocaleString(undefined, { minimumFractionDigits: decimals ?? 0, maximumFractionDigits: decimals ?? 2 }),
  bytes: (value, decimals) => scaled(value, decimals, 1024, BINARY),
  percent: (value, decimals) => fixed(value, decimals) + "%",
  percentunit: (value, decimals) => fixed(value * 100, decimals) + "%",
  ms: (value, decimals) => duration(value / 1000, decimals),
  s: (value, decimals) => duration(value, decimals),
  cpm: (value, decimals) => scaled(value, decimals, 1000, SHORT) + " /min",
  wps: (value, decimals) => scaled(value, decimals, 1000, SHORT) + " rows/s",
};

export function knowsUnit(unit) { return unit === undefined || unit in UNITS; }

export function formatNumber(value, unit, decimals) {
  return (UNITS[unit] || UNITS.none)(value, decimals);
}

export function formatTime(ms) {
  const time = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  return time.getFullYear() + "-" + two(time.getMonth() + 1) + "-" + two(time.getDate()) + " "
    + two(time.getHours()) + ":" + two(time.getMinutes()) + ":" + two(time.getSeconds());
}

export function formatDuration(ms) { return duration(ms / 1000); }

// --- colours ------------------------------------------------------------------------------------

const LIGHT = {
  green: "#1a7f4b", yellow: "#e0b400", orange: "#d9730d", red: "#c0262d", blue: "#1f6fb2",
  purple: "#7a4fb0",
  lines: ["#1f77b4", "#d9660a", "#2a9134", "#c0262d", "#8757b3", "#8c564b", "#c443a0", "#5f6b7a",
    "#8a8a10", "#0e8797", "#3c5fd0", "#a85a00"],
};
const DARK = {
  green: "#2fa866", yellow: "#e5bb2a", orange: "#ee8b3a", red: "#e05252", blue: "#4c94d8",
  purple: "#a583d8",
  lines: ["#5aa9e6", "#ff9f4a", "#5fc96b", "#ff7b72", "#b892e8", "#c99a8d", "#f08bd0", "#a3adb8",
    "#d3d34a", "#42cfe0", "#8fa6ff", "#e0a050"],
};

const dark = globalThis.matchMedia ? matchMedia("(prefers-color-scheme: dark)") : { matches: false };

function theme() { return dark.matches ? DARK : LIGHT; }

export function onThemeChange(listener) { dark.addEventListener("change", listener); }

// A colour of the dashboard: one of the names, or a value in hexadecimal or rgb form.
export function color(name) {
  if (typeof name !== "string") return theme().blue;
  if (name in theme() && name !== "lines") return theme()[name];
  return /^(#[0-9a-fA-F]{3,8}|rgba?\([0-9., ]+\))$/.test(name) ? name : theme().blue;
}

export function lineColor(index) {
  const { lines } = theme();
  return lines[index % lines.length];
}

// Black or white, whichever can be read on `background`.
export function textOn(background) {
  const hex = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})/i.exec(background);
  if (!hex) return "#fff";
  const [red, green, blue] = hex.slice(1).map((part) => {
    const share = parseInt(part, 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#14181b" : "#fff";
}

// --- fields -------------------------------------------------------------------------------------

// The settings of a field: the panel's defaults, changed by the overrides of its name.
export function field(panel, name) {
  const config = panel.fieldConfig || {};
  const settings = { ...(config.defaults || {}), custom: { ...((config.defaults || {}).custom || {}) } };
  for (const override of config.overrides || []) {
    if (override.matcher.id !== "byName" || override.matcher.options !== name) continue;
    for (const { id, value } of override.properties) {
      if (id.startsWith("custom.")) settings.custom[id.slice(7)] = value;
      else settings[id] = value;
    }
  }
  return settings;
}

export function stepColor(value, thresholds) {
  let found = "green";
  for (const step of (thresholds && thresholds.steps) || []) {
    if (step.value === null || value >= step.value) found = step.color;
  }
  return color(found);
}

function mapped(value, mappings) {
  for (const mapping of mappings || []) {
    const options = mapping.type === "value" ? mapping.options : {};
    const found = Object.hasOwn(options, String(value)) ? options[String(value)] : undefined;
    if (found) return found;
  }
  return undefined;
}

// Text and colour of a value; `kind` is that of its column.
export function display(value, settings, kind = "number") {
  if (value === null || value === undefined) {
    return { text: clean(settings.noValue ?? "–"), color: color("#808080"), empty: true };
  }
  const state = mapped(value, settings.mappings);
  if (state) return { text: clean(state.text), color: color(state.color), state: true };
  if (kind === "time") return { text: formatTime(value), color: stepColor(0, undefined) };
  if (typeof value === "number") {
    return {
      text: formatNumber(value, settings.unit, settings.decimals),
      color: stepColor(value, settings.thresholds),
    };
  }
  return { text: clean(value), color: stepColor(-Infinity, settings.thresholds) };
}
