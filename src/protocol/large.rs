//! A large value on its way: gathered in a buffer of its own, into which the socket is read, so that its bytes are copied
//! once, and whoever keeps it keeps nothing else.

use bytes::{Buf, Bytes, BytesMut};

use super::ProtocolError;

const END: &[u8] = b"\r\n";

/// How much is read beyond a value and its end: most often that is what comes next, and saves a system call.
const BEYOND: usize = 1024;

/// Room for a value up to this length is made at once. Of a longer one, twice what has come: the length alone, which
/// is only a number that a server has sent, is no reason to take a gigabyte.
const AT_ONCE: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct LargeValue {
    len: usize,
    /// What has come of it, of its end, and of what follows.
    gathered: Vec<u8>,
}

impl LargeValue {
    pub(super) fn new(len: usize) -> Self {
        Self { len, gathered: Vec::with_capacity(len.min(AT_ONCE) + END.len() + BEYOND) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.gathered.len() >= self.len + END.len()
    }

    /// Takes what is its own off the front of `input`.
    pub(super) fn take_from(&mut self, input: &mut BytesMut) {
        let mut missing = (self.len + END.len()).saturating_sub(self.gathered.len()).min(input.len());
        while missing > 0 {
            let room = self.room();
            let count = missing.min(room.capacity() - room.len());
            room.extend_from_slice(&input[..count]);
            input.advance(count);
            missing -= count;
        }
    }

    /// Where to read more of it; there is room.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.gathered.len() == self.gathered.capacity() {
            let missing = (self.len + END.len() + BEYOND).saturating_sub(self.gathered.len());
            self.gathered.reserve_exact(missing.min(self.gathered.len()).max(1));
        }
        &mut self.gathered
    }

    /// The value, which must be whole. What was read beyond it is put into `input`, which must be empty if there is any.
    pub(super) fn finish(mut self, input: &mut BytesMut) -> Result<Bytes, ProtocolError> {
        let (value, rest) = self.gathered.split_at(self.len);
        let rest = rest.strip_prefix(END).ok_or(ProtocolError::MissingTerminator)?;
        debug_assert!(rest.is_empty() || input.is_empty(), "what came first goes first");
        input.extend_from_slice(rest);
        let len = value.len();
        self.gathered.truncate(len);
        Ok(self.gathered.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_a_buffer_of_its_size() {
        let mut value = LargeValue::new(10_000);
        assert_eq!(value.room().capacity(), 10_000 + 2 + BEYOND);
        let mut input = BytesMut::from(&[b'x'; 3000][..]);
        value.take_from(&mut input);
        assert!(input.is_empty() && !value.is_whole());
        // As a socket would be read: all there is room for.
        let room = value.room();
        room.extend_from_slice(&[b'x'; 7000]);
        room.extend_from_slice(b"\r\nVALUE");
        assert!(value.is_whole());
        let value = value.finish(&mut input).unwrap();
        assert_eq!(value, [b'x'; 10_000][..]);
        assert_eq!(input, b"VALUE"[..]);
        assert!(value.try_into_mut().unwrap().capacity() <= 10_000 + 2 + BEYOND);
    }

    #[test]
    fn what_follows_is_left() {
        let mut value = LargeValue::new(3);
        let mut input = BytesMut::from("abc\r\nEND\r\n");
        value.take_from(&mut input);
        assert_eq!(input, b"END\r\n"[..]);
        assert_eq!(value.finish(&mut input).unwrap(), b"abc"[..]);
        assert_eq!(input, b"END\r\n"[..]);
    }

    #[test]
    fn a_value_ends_where_its_length_says() {
        for end in [&b"x\r\n"[..], b"\rx", b"\n\r"] {
            let mut value = LargeValue::new(3);
            let mut input = BytesMut::from(&[b"abc", end].concat()[..]);
            value.take_from(&mut input);
            assert_eq!(value.finish(&mut input), Err(ProtocolError::MissingTerminator), "{end:?}");
        }
    }

    #[test]
    fn room_grows_with_what_has_come() {
        let len = 10 * AT_ONCE + 7;
        let mut value = LargeValue::new(len);
        let mut come = 0;
        let whole = loop {
            let room = value.room();
            assert!(room.capacity() <= (2 * come).max(AT_ONCE + 2 + BEYOND), "{come}: {}", room.capacity());
            assert!(room.capacity() > room.len());
            let count = (room.capacity() - room.len()).min(700_000).min(len - come);
            room.resize(come + count, b'x');
            come += count;
            if come == len {
                value.take_from(&mut BytesMut::from("\r\n"));
                break value.finish(&mut BytesMut::new()).unwrap();
            }
        };
        assert_eq!(whole.len(), len);
        assert!(whole.try_into_mut().unwrap().capacity() <= len + 2 + BEYOND);
    }
}
