//! The different values of SYMBOL columns: how many there are, and a small number for each.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::validate::DISTINCT_LIMIT;

/// Values that are found by their address.
const SLOTS: usize = 64;

/// The values that a SYMBOL column has had today.
#[derive(Debug)]
pub(super) struct Values {
    ids: HashMap<Arc<str>, u64>,
    /// Values seen last, by their address: most rows share their texts.
    recent: [Option<(Arc<str>, u64)>; SLOTS],
    pub(super) is_over: bool,
}

/// Id of [`OTHER`]; 0 is null.
pub(super) const OTHER_ID: u64 = 1;

impl Default for Values {
    fn default() -> Self {
        Self { ids: HashMap::new(), recent: std::array::from_fn(|_| None), is_over: false }
    }
}

impl Values {
    fn slot(text: &Arc<str>) -> usize {
        (text.as_ptr().addr() >> 4) % SLOTS
    }

    /// Returns the id of `text` if it was seen at this very address.
    pub(super) fn recent(&self, text: &Arc<str>) -> Option<u64> {
        let (known, id) = self.recent.get(Self::slot(text))?.as_ref()?;
        Arc::ptr_eq(known, text).then_some(*id)
    }

    /// Returns the id of `text`, a new one if there is room.
    pub(super) fn id(&mut self, text: &Arc<str>) -> Option<u64> {
        let id = match self.ids.get(text) {
            Some(id) => *id,
            None if self.ids.len() >= DISTINCT_LIMIT => return None,
            None => {
                let id = u64::try_from(self.ids.len()).ok()?.saturating_add(2);
                self.ids.insert(Arc::clone(text), id);
                id
            }
        };
        if let Some(slot) = self.recent.get_mut(Self::slot(text)) {
            *slot = Some((Arc::clone(text), id));
        }
        Some(id)
    }
}

/// Combines the ids of a row's keys.
pub(super) const fn mix(series: u64, id: u64) -> u64 {
    (series ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// For keys that are mixed already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0, u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map from mixed keys.
pub(super) type SeriesMap<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_id_wherever_they_are() {
        let mut values = Values::default();
        let (a, again): (Arc<str>, Arc<str>) = ("a".into(), "a".into());
        let id = values.id(&a).unwrap();
        assert_eq!(values.id(&again), Some(id));
        assert_ne!(values.id(&"b".into()), Some(id));
        assert_eq!(values.recent(&"a".into()), None, "another address");
        let known = [values.recent(&a), values.recent(&again)];
        assert!(known.contains(&Some(id)), "{known:?}");
    }

    #[test]
    fn keys_in_another_order_are_another_series() {
        assert_ne!(mix(mix(0, 2), 3), mix(mix(0, 3), 2));
        let mut map = SeriesMap::default();
        map.insert(mix(0, 2), 1);
        assert_eq!((map.get(&mix(0, 2)), map.get(&mix(0, 3))), (Some(&1), None));
    }
}
