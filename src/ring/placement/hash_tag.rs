//! twemproxy's hash tag: two bytes that enclose the part of a key that is hashed.

/// Returns the part of a key that is hashed: what the tag encloses, or the whole key.
///
/// The enclosed part is between the first opening byte and the first closing byte after it. If it is missing or empty,
/// the whole key is hashed.
pub(super) fn hashed_part(key: &[u8], hash_tag: Option<(u8, u8)>) -> &[u8] {
    hash_tag.and_then(|tag| enclosed(key, tag)).unwrap_or(key)
}

fn enclosed(key: &[u8], (open, close): (u8, u8)) -> Option<&[u8]> {
    let start = memchr::memchr(open, key)? + 1;
    let len = memchr::memchr(close, &key[start..])?;
    (len > 0).then(|| &key[start..start + len])
}
