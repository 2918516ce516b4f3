//! Receives a large value in its own buffer.
//!
//! The socket is read straight into that buffer, so the bytes are copied once, and a caller that keeps the value keeps
//! no other memory alive.

use bytes::{Buf, Bytes, BytesMut};

use super::ProtocolError;

const END: &[u8] = b"\r\n";

/// How many bytes to read beyond a value and its end. This is often the rest of the response, and saves a system call.
const READ_AHEAD: usize = 1024;

/// A value up to this length is allocated at once. For a longer one the buffer doubles as bytes arrive.
///
/// A declared length is only a number that a server sent, so it must not make the client allocate a gigabyte.
const MAX_INITIAL: usize = 1024 * 1024;

/// How much has arrived of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyProgress {
    /// The bytes that have arrived, with the line end after the value.
    pub(crate) arrived: usize,
    /// The announced length.
    pub(crate) len: usize,
}

/// A large value, received in part or in full.
#[derive(Debug)]
pub(super) struct LargeValue {
    len: usize,
    /// The bytes received: the value, its `\r\n`, and what follows.
    received: Vec<u8>,
}

impl LargeValue {
    /// Prepares to receive a value of `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        Self { len, received: Vec::with_capacity(len.min(MAX_INITIAL) + END.len() + READ_AHEAD) }
    }

    /// Returns whether the value and its `\r\n` have been received.
    pub(super) fn is_complete(&self) -> bool {
        self.received.len() >= self.len + END.len()
    }

    pub(super) fn progress(&self) -> BodyProgress {
        BodyProgress { arrived: self.received.len(), len: self.len }
    }

    /// Moves the missing bytes of the value and its `\r\n` from the front of `input`.
    pub(super) fn take_from(&mut self, input: &mut BytesMut) {
        let mut missing = (self.len + END.len()).saturating_sub(self.received.len()).min(input.len());
        while missing > 0 {
            let buffer = self.buffer();
            let count = missing.min(buffer.capacity() - buffer.len());
            buffer.extend_from_slice(&input[..count]);
            input.advance(count);
            missing -= count;
        }
    }

    /// Returns the buffer to read more bytes into. It always has spare capacity.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.received.len() == self.received.capacity() {
            let missing = (self.len + END.len() + READ_AHEAD).saturating_sub(self.received.len());
            self.received.reserve_exact(missing.min(self.received.len()).max(1));
        }
        &mut self.received
    }

    /// Returns the value, which must be complete, and moves the bytes read beyond it to `input`.
    ///
    /// `input` must be empty if there are such bytes. Fails if no `\r\n` follows the value.
    pub(super) fn finish(mut self, input: &mut BytesMut) -> Result<Bytes, ProtocolError> {
        let (value, rest) = self.received.split_at(self.len);
        let rest = rest.strip_prefix(END).ok_or(ProtocolError::MissingTerminator)?;
        debug_assert!(rest.is_empty() || input.is_empty(), "bytes read ahead must not overtake earlier input");
        input.extend_from_slice(rest);
        let len = value.len();
        self.received.truncate(len);
        Ok(self.received.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_fits_the_value() {
        let mut value = LargeValue::new(10_000);
        assert_eq!(value.buffer().capacity(), 10_000 + 2 + READ_AHEAD);
        let mut input = BytesMut::from(&[b'x'; 3000][..]);
        value.take_from(&mut input);
        assert!(input.is_empty() && !value.is_complete());
        // As from a socket, up to the spare capacity.
        let buffer = value.buffer();
        buffer.extend_from_slice(&[b'x'; 7000]);
        buffer.extend_from_slice(b"\r\nVALUE");
        assert!(value.is_complete());
        let value = value.finish(&mut input).unwrap();
        assert_eq!(value, [b'x'; 10_000][..]);
        assert_eq!(input, b"VALUE"[..]);
        assert!(value.try_into_mut().unwrap().capacity() <= 10_000 + 2 + READ_AHEAD);
    }

    #[test]
    fn bytes_after_the_value_stay_in_the_input() {
        let mut value = LargeValue::new(3);
        let mut input = BytesMut::from("abc\r\nEND\r\n");
        value.take_from(&mut input);
        assert_eq!(input, b"END\r\n"[..]);
        assert_eq!(value.finish(&mut input).unwrap(), b"abc"[..]);
        assert_eq!(input, b"END\r\n"[..]);
    }

    #[test]
    fn a_value_without_a_line_end_is_an_error() {
        for end in [&b"x\r\n"[..], b"\rx", b"\n\r"] {
            let mut value = LargeValue::new(3);
            let mut input = BytesMut::from(&[b"abc", end].concat()[..]);
            value.take_from(&mut input);
            assert_eq!(value.finish(&mut input), Err(ProtocolError::MissingTerminator), "{end:?}");
        }
    }

    #[test]
    fn the_buffer_grows_with_the_received_bytes() {
        let len = 10 * MAX_INITIAL + 7;
        let mut value = LargeValue::new(len);
        let mut received = 0;
        let whole = loop {
            let buffer = value.buffer();
            assert!(
                buffer.capacity() <= (2 * received).max(MAX_INITIAL + 2 + READ_AHEAD),
                "{received}: {}",
                buffer.capacity()
            );
            assert!(buffer.capacity() > buffer.len());
            let count = (buffer.capacity() - buffer.len()).min(700_000).min(len - received);
            buffer.resize(received + count, b'x');
            received += count;
            if received == len {
                value.take_from(&mut BytesMut::from("\r\n"));
                break value.finish(&mut BytesMut::new()).unwrap();
            }
        };
        assert_eq!(whole.len(), len);
        assert!(whole.try_into_mut().unwrap().capacity() <= len + 2 + READ_AHEAD);
    }
}
