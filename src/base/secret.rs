//! A value that must not reach logs, pages, metrics, messages or process lists.

use std::fmt;

/// Text that prints as `***` and cannot be serialized.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself. Call it only where the value leaves for the server it belongs to.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Makes `bytes` random bytes from the kernel, as lower-case hexadecimal.
    ///
    /// # Errors
    /// The kernel's random source cannot be read.
    pub fn random(bytes: usize) -> std::io::Result<Self> {
        use std::fmt::Write as _;
        use std::io::Read as _;
        let mut raw = vec![0_u8; bytes];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut raw)?;
        let mut text = String::with_capacity(bytes * 2);
        for byte in raw {
            // Writing to a String cannot fail.
            let _ignored = write!(text, "{byte:02x}");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn random_secrets_differ_and_have_the_asked_length() {
        let (a, b) = (Secret::random(32).unwrap(), Secret::random(32).unwrap());
        assert_eq!(a.reveal().len(), 64);
        assert_ne!(a, b);
    }
}
