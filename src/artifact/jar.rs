//! Looks into `questdb.jar`: whether it is a whole archive, and which version it holds.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// The entry that names the version.
const MANIFEST: &[u8] = b"META-INF/MANIFEST.MF";

/// Why a jar is not usable.
#[derive(Debug, thiserror::Error)]
pub enum JarError {
    /// It cannot be read.
    #[error("read the jar: {0}")]
    Io(#[from] io::Error),
    /// It is cut off or no jar.
    #[error("the jar is corrupt: {0}")]
    Corrupt(&'static str),
}

/// Returns the version that the manifest of the jar at `path` names.
///
/// # Errors
/// [`JarError::Corrupt`] when the end, the directory or the manifest is missing, which is what
/// a download that was cut off looks like.
pub fn version(path: &Path) -> Result<String, JarError> {
    let mut file = File::open(path)?;
    let directory = directory(&mut file)?;
    let entry = find(&directory, MANIFEST).ok_or(JarError::Corrupt("no manifest"))?;
    let manifest = entry.read(&mut file)?;
    String::from_utf8_lossy(&manifest)
        .lines()
        .find_map(|line| line.strip_prefix("Implementation-Version:"))
        .map(|version| version.trim().to_owned())
        .ok_or(JarError::Corrupt("the manifest names no version"))
}

#[derive(Debug)]
struct Entry {
    deflated: bool,
    packed: u64,
    offset: u64,
}

impl Entry {
    fn read(&self, file: &mut File) -> Result<Vec<u8>, JarError> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut head = [0_u8; 30];
        file.read_exact(&mut head)?;
        if !head.starts_with(b"PK\x03\x04") {
            return Err(JarError::Corrupt("the manifest is not where the directory says"));
        }
        let skip = u16_at(&head, 26).zip(u16_at(&head, 28));
        let (name, extra) = skip.ok_or(JarError::Corrupt("cut entry"))?;
        file.seek(SeekFrom::Current(i64::from(name) + i64::from(extra)))?;
        // A manifest has some hundred bytes; the limit only keeps a hostile one from memory.
        let mut content = Vec::new();
        let packed = file.take(self.packed.min(1 << 20));
        let result = if self.deflated {
            flate2::read::DeflateDecoder::new(packed).take(1 << 20).read_to_end(&mut content)
        } else {
            { packed }.read_to_end(&mut content)
        };
        result.map_err(|_| JarError::Corrupt("the manifest cannot be unpacked"))?;
        Ok(content)
    }
}

/// Returns the bytes of the archive's central directory.
fn directory(file: &mut File) -> Result<Vec<u8>, JarError> {
    const END: usize = 22;
    let length = file.seek(SeekFrom::End(0))?;
    // The end record may be followed by a comment of up to 64 KiB.
    let tail_length = length.min(64 * 1024 + 22);
    file.seek(SeekFrom::Start(length - tail_length))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let end = tail
        .windows(END)
        .rfind(|window| window.starts_with(b"PK\x05\x06"))
        .ok_or(JarError::Corrupt("its end is missing"))?;
    let place = u32_at(end, 12).zip(u32_at(end, 16));
    let (size, offset) = place.ok_or(JarError::Corrupt("cut end record"))?;
    if u64::from(size) + u64::from(offset) > length {
        return Err(JarError::Corrupt("its directory lies outside"));
    }
    file.seek(SeekFrom::Start(offset.into()))?;
    let mut directory = Vec::new();
    file.take(size.into()).read_to_end(&mut directory)?;
    Ok(directory)
}

fn find(mut directory: &[u8], wanted: &[u8]) -> Option<Entry> {
    while directory.starts_with(b"PK\x01\x02") {
        let name_length = usize::from(u16_at(directory, 28)?);
        let rest =
            name_length + usize::from(u16_at(directory, 30)?) + usize::from(u16_at(directory, 32)?);
        if directory.get(46..46 + name_length)? == wanted {
            return Some(Entry {
                deflated: u16_at(directory, 10)? == 8,
                packed: u32_at(directory, 20)?.into(),
                offset: u32_at(directory, 42)?.into(),
            });
        }
        directory = directory.get(46 + rest..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_and_empty_files_are_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questdb.jar");
        for content in ["", "no jar at all", &"x".repeat(100_000)] {
            std::fs::write(&path, content).unwrap();
            let error = version(&path).unwrap_err().to_string();
            assert_eq!(error, "the jar is corrupt: its end is missing");
        }
        let end = [&b"PK\x05\x06"[..], &[0xff; 18]].concat();
        std::fs::write(&path, end).unwrap();
        let error = version(&path).unwrap_err().to_string();
        assert_eq!(error, "the jar is corrupt: its directory lies outside");
    }
}
