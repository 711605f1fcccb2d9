//! Presets: maps and requests for programs that many people run, written in the same words as
//! everybody's own maps (`assets/presets/NAME.toml`).

use super::{Map, map};
use crate::base::embed::asset_text;
use crate::config::check::{Place, Problems};
use crate::config::file;
use crate::config::parts::{Part, parts};
use crate::config::reader::Section;

/// The words of `preset`.
pub(in crate::config) const PRESETS: [(&str, &str); 5] = [
    ("shim", ""),
    ("nautilus", ""),
    ("ccxt-pipeline", ""),
    ("freqtrade", "presets/freqtrade.toml"),
    ("hummingbot-api", "presets/hummingbot-api.toml"),
];

/// What a preset stands for.
#[derive(Debug, Default)]
pub(in crate::config) struct Preset {
    /// Requests of one poll; a preset that has some is for source = "http".
    pub(in crate::config) parts: Vec<Part>,
    /// The map; `None` when the document is a status as it is.
    pub(in crate::config) map: Option<Map>,
}

impl Preset {
    /// Reads the preset in the embedded file `path`; without a path the document is a status.
    pub(in crate::config) fn load(path: &str, problems: &mut Problems) -> Self {
        if path.is_empty() {
            return Self::default();
        }
        let text = asset_text(path).unwrap_or_default();
        let table = file::parse(path, text.as_bytes(), problems);
        let mut root = Section::root(&table, Place::File { name: path.to_owned() });
        let parts = parts(root.section("parts", problems), problems);
        let map = map(root.section("map", problems), problems);
        root.finish(problems);
        Self { parts, map: Some(map) }
    }

    /// Puts a daemon's own map over that of the preset.
    pub(in crate::config) fn with(self, own: Option<Map>) -> Option<Map> {
        match (self.map, own) {
            (Some(mut map), Some(own)) => {
                map.overlay(own);
                Some(map)
            }
            (map, own) => map.or(own),
        }
    }
}
