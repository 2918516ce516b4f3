//! A retrieval line being encoded, and its limits.

use bytes::BytesMut;

use crate::key::Key;
use crate::protocol::{
    LARGEST_LINE_BYTES, LARGEST_LINE_KEYS, LARGEST_TOUCH_LINE_BYTES, encode_get_key, encode_get_start,
};

/// Which of `get`, `gets`, `gat` and `gats` a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GetForm {
    /// Values arrive with their CAS unique.
    pub(super) cas: bool,
    /// The expiry time that each item found is given.
    pub(super) touch: Option<u32>,
}

#[derive(Debug)]
pub(super) struct GetLine {
    pub(super) form: GetForm,
    /// Where the line begins in the output.
    pub(super) start: usize,
    keys: usize,
}

impl GetLine {
    pub(super) fn begin(form: GetForm, out: &mut BytesMut) -> Self {
        let start = out.len();
        encode_get_start(form.cas, form.touch, out);
        Self { form, start, keys: 0 }
    }

    pub(super) fn push(&mut self, key: &Key, out: &mut BytesMut) {
        encode_get_key(key, out);
        self.keys += 1;
    }

    pub(super) fn has_room_for(&self, key: &Key, out: &BytesMut) -> bool {
        let bytes = out.len() - self.start + 1 + key.as_bytes().len();
        let largest = if self.form.touch.is_some() { LARGEST_TOUCH_LINE_BYTES } else { LARGEST_LINE_BYTES };
        self.keys == 0 || (self.keys < LARGEST_LINE_KEYS && bytes <= largest)
    }
}
