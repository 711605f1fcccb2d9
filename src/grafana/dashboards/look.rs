//! How each kind of panel looks: the options that are the same for all panels of a kind.

use serde_json::{Value, json};

use super::panel::{Kind, Panel};

/// Breaks in a line shorter than this are bridged, milliseconds: polls may be minutes apart.
const BRIDGED_MS: u32 = 300_000;

/// Returns the settings of a panel's series that only its kind knows.
pub(super) fn custom(panel: &Panel) -> Value {
    match panel.kind {
        Kind::TimeSeries => json!({
            "axisBorderShow": false,
            "axisCenteredZero": false,
            "axisColorMode": "text",
            "axisLabel": "",
            "axisPlacement": "auto",
            "barAlignment": 0,
            "drawStyle": "line",
            "fillOpacity": 8,
            "gradientMode": "none",
            "hideFrom": {"legend": false, "tooltip": false, "viz": false},
            "insertNulls": false,
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "pointSize": 4,
            "scaleDistribution": {"type": "linear"},
            "showPoints": "auto",
            "spanNulls": BRIDGED_MS,
            "stacking": {"group": "A", "mode": "none"},
            "thresholdsStyle": {
                "mode": if panel.scale.steps.is_empty() { "off" } else { "dashed" },
            },
        }),
        Kind::StateTimeline => json!({
            "fillOpacity": 80,
            "hideFrom": {"legend": false, "tooltip": false, "viz": false},
            "lineWidth": 0,
            "spanNulls": BRIDGED_MS,
        }),
        Kind::Table => json!({
            "align": "auto",
            "cellOptions": {"type": "auto"},
            "filterable": true,
            "inspect": false,
        }),
        Kind::Stat | Kind::BarGauge => json!({}),
    }
}

/// Returns the options of a kind of panel.
pub(super) fn options(kind: Kind) -> Value {
    let reduce = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
    match kind {
        Kind::TimeSeries => json!({
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": true,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }),
        Kind::Stat => json!({
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": reduce,
            "showPercentChange": false,
            "textMode": "auto",
            "wideLayout": true,
        }),
        Kind::StateTimeline => json!({
            "alignValue": "left",
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": true,
            },
            "mergeValues": true,
            "rowHeight": 0.9,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        }),
        Kind::BarGauge => json!({
            "displayMode": "basic",
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": false,
            },
            "maxVizHeight": 300,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": reduce,
            "showUnfilled": true,
            "sizing": "auto",
            "valueMode": "color",
        }),
        Kind::Table => json!({
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": true,
        }),
    }
}
