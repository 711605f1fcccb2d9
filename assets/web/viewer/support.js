// What of a dashboard this viewer does not show. It is said on the panel, never left out in silence.

import { knowsUnit } from "./format.js";
import { REDUCERS } from "./frames.js";

const KINDS = ["timeseries", "stat", "state-timeline", "bargauge", "gauge", "table", "text"];
const PROPERTIES = ["unit", "decimals", "displayName", "mappings", "thresholds", "min", "max", "noValue",
  "custom.width", "custom.cellOptions"];

export function knowsKind(kind) { return KINDS.includes(kind); }

// Returns what of the panel is not shown, in words.
export function unsupported(panel) {
  const found = new Set();
  if (!knowsKind(panel.type)) return ["panels of type " + panel.type];
  const { defaults = {}, overrides = [] } = panel.fieldConfig || {};
  if (!knowsUnit(defaults.unit)) found.add("unit " + defaults.unit);
  for (const override of overrides) {
    if (override.matcher.id !== "byName") found.add("settings by " + override.matcher.id);
    for (const { id, value } of override.properties) {
      if (!PROPERTIES.includes(id)) found.add("setting " + id);
      if (id === "unit" && !knowsUnit(value)) found.add("unit " + value);
    }
  }
  for (const mapping of defaults.mappings || []) {
    if (mapping.type !== "value") found.add("mappings by " + mapping.type);
  }
  if (defaults.thresholds && defaults.thresholds.mode !== "absolute") found.add("thresholds in percent");
  if ((panel.transformations || []).length > 0) found.add("transformations");
  if (panel.repeat) found.add("repetition by a variable");
  if ((panel.links || defaults.links || []).length > 0) found.add("links");
  for (const calc of panel.options?.reduceOptions?.calcs || []) {
    if (!(calc in REDUCERS)) found.add("calculation " + calc);
  }
  const custom = defaults.custom || {};
  if (custom.drawStyle && custom.drawStyle !== "line") found.add("drawing as " + custom.drawStyle);
  if (custom.stacking && custom.stacking.mode !== "none") found.add("stacking");
  if (custom.scaleDistribution && custom.scaleDistribution.type !== "linear") found.add("a scale that is not linear");
  if (panel.type === "stat" && (panel.options?.graphMode || "none") !== "none") found.add("the small graph");
  return [...found];
}
