//! Changes that become visible together.

use super::version::check_lengths;
use crate::error::Result;
use std::collections::BTreeMap;

/// Changes of keys; of one key the last counts. Applied as a whole, at one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl WriteBatch {
    /// Sets a key.
    ///
    /// # Errors
    /// [`crate::StorageError::Setting`] where the key is empty or longer than 1,024 bytes, or the value longer than 64 MiB.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_lengths(key, value)?;
        match self.changes.get_mut(key) {
            Some(Some(old)) => {
                old.clear();
                old.extend_from_slice(value);
            }
            Some(old) => *old = Some(value.to_vec()),
            None => {
                self.changes.insert(key.to_vec(), Some(value.to_vec()));
            }
        }
        Ok(())
    }

    /// Deletes a key, whether or not there is one.
    ///
    /// # Errors
    /// [`crate::StorageError::Setting`] where the key is empty or longer than 1,024 bytes.
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        check_lengths(key, &[])?;
        match self.changes.get_mut(key) {
            Some(old) => *old = None,
            None => {
                self.changes.insert(key.to_vec(), None);
            }
        }
        Ok(())
    }

    /// What the batch makes of a key; `None` where it does not name it, `Some(None)` where it deletes it.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes.get(key).map(Option::as_deref)
    }

    /// Takes every change back.
    pub fn clear(&mut self) {
        self.changes.clear();
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Keys that change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Keys in order, with what they become; `None` is deleted.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::version::KEY_BYTES_MAX;

    #[test]
    fn the_last_change_of_a_key_counts() {
        let mut batch = WriteBatch::default();
        batch.put(b"b", b"1").unwrap();
        batch.put(b"a", b"1").unwrap();
        batch.put(b"a", b"22").unwrap();
        batch.delete(b"b").unwrap();
        batch.delete(b"c").unwrap();
        batch.put(b"c", b"").unwrap();
        let expected: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"22")), (b"b", None), (b"c", Some(b""))];
        assert!(batch.changes().eq(expected));
        assert_eq!((batch.len(), batch.get(b"b"), batch.get(b"d")), (3, Some(None), None));
    }

    #[test]
    fn a_key_without_bytes_and_one_too_long_are_refused() {
        let mut batch = WriteBatch::default();
        assert!(batch.put(b"", b"1").is_err());
        assert!(batch.delete(&[0; KEY_BYTES_MAX + 1]).is_err());
        assert!(batch.is_empty());
    }
}
