//! How a client turns its callers' bytes into keys: its namespace, and what it allows beyond text of 250 bytes.

use std::sync::Arc;

use super::{InvalidKey, Key, MetaKey, nested_prefix};

/// The rules by which a client makes keys. The only place where a caller's bytes become a key.
#[derive(Debug, Clone)]
pub(crate) struct KeySpace {
    /// In front of every key.
    prefix: Option<Arc<[u8]>>,
    allows_binary: bool,
    #[cfg(feature = "long-keys")]
    long_keys: super::LongKeys,
}

impl KeySpace {
    /// Rules without a prefix.
    pub(crate) fn new(allows_binary: bool, #[cfg(feature = "long-keys")] long_keys: super::LongKeys) -> Self {
        Self {
            prefix: None,
            allows_binary,
            #[cfg(feature = "long-keys")]
            long_keys,
        }
    }

    /// Returns the same rules with a prefix appended to this one's.
    pub(crate) fn nested(&self, prefix: &[u8]) -> Result<Self, InvalidKey> {
        let prefix = nested_prefix(self.prefix(), prefix)?;
        Ok(Self { prefix: Some(prefix.into()), ..self.clone() })
    }

    /// Makes a text key.
    pub(crate) fn key(&self, key: &[u8]) -> Result<Key, InvalidKey> {
        let mut made = Key::placeholder();
        self.write_key(key, &mut made)?;
        Ok(made)
    }

    /// Makes a text key in place.
    #[inline]
    pub(crate) fn write_key(&self, key: &[u8], place: &mut Key) -> Result<(), InvalidKey> {
        let made = place.assign(self.prefix(), key);
        #[cfg(feature = "long-keys")]
        if let Err(too_long @ InvalidKey::TooLong { .. }) = made {
            *place = self.long_keys.shorten(self.prefix.as_deref(), key, too_long)?;
            return Ok(());
        }
        made
    }

    /// Makes a text key or, where binary keys are allowed, one that only meta commands can carry.
    pub(crate) fn any_key(&self, key: &[u8]) -> Result<MetaKey, InvalidKey> {
        match self.key(key) {
            Ok(key) => Ok(MetaKey::Text(key)),
            Err(InvalidKey::Byte { .. }) if self.allows_binary => MetaKey::binary(&[self.prefix(), key].concat()),
            Err(invalid) => Err(invalid),
        }
    }

    #[inline]
    fn prefix(&self) -> &[u8] {
        self.prefix.as_deref().unwrap_or_default()
    }
}
