//! Files that travel inside the binary.

use rust_embed::RustEmbed;

/// Everything under `assets/`.
#[derive(Debug, RustEmbed)]
#[folder = "assets/"]
#[exclude = "*.pyc"]
#[exclude = "*/__pycache__/*"]
pub struct Assets;

/// Returns the embedded text file `path` (relative to `assets/`); `None` if there is none or it
/// is not UTF-8.
pub fn asset_text(path: &str) -> Option<String> {
    String::from_utf8(Assets::get(path)?.data.into_owned()).ok()
}
