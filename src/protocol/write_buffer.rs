//! Bytes that wait to be written: text, with large data blocks at their places in it.
//!
//! A small data block is copied into the text, so that a batch of small values is one contiguous slice. A large block
//! is not copied: the caller's buffer is shared, and released as soon as its last byte is written.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Data blocks of this size or larger are not copied.
pub(crate) const LARGE_BLOCK: usize = 4 * 1024;

/// A text buffer that grew beyond this for one batch is freed afterwards.
const MAX_IDLE_TEXT: usize = 256 * 1024;

/// Encoded requests that wait to be written to a socket.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    text: BytesMut,
    /// How many bytes of text have been written and removed.
    text_written: u64,
    blocks: VecDeque<Block>,
    /// The bytes left in all blocks.
    blocks_len: usize,
}

#[derive(Debug)]
struct Block {
    /// The offset in the text at which the block goes, counted from the first byte ever appended.
    text_offset: u64,
    /// The bytes not yet written.
    bytes: Bytes,
}

impl WriteBuffer {
    /// Returns how many bytes wait to be written.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.blocks_len
    }

    /// Returns the buffer for everything but data blocks, to append to.
    pub(crate) fn text(&mut self) -> &mut BytesMut {
        &mut self.text
    }

    /// Returns how many bytes of a data block [`push_block`](Self::push_block) copies into the text.
    pub(crate) fn copied(block: &Bytes) -> usize {
        if block.len() < LARGE_BLOCK { block.len() } else { 0 }
    }

    /// Appends a data block.
    pub(crate) fn push_block(&mut self, block: &Bytes) {
        if block.len() < LARGE_BLOCK {
            self.text.extend_from_slice(block);
        } else {
            self.blocks_len += block.len();
            self.blocks
                .push_back(Block { text_offset: self.text_written + self.text.len() as u64, bytes: block.clone() });
        }
    }

    /// Returns whether the bytes left are one contiguous slice.
    pub(crate) fn is_one_piece(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the first contiguous slice; empty if nothing is left.
    pub(crate) fn first_piece(&self) -> &[u8] {
        match self.blocks.front() {
            None => &self.text,
            Some(block) if block.text_offset == self.text_written => &block.bytes,
            Some(block) => &self.text[..self.text_before(block)],
        }
    }

    /// Fills `pieces` with as many slices as fit, and returns how many.
    pub(crate) fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut push = |piece: &'a [u8]| {
            if piece.is_empty() {
                return true;
            }
            let Some(slot) = pieces.get_mut(count) else { return false };
            *slot = IoSlice::new(piece);
            count += 1;
            true
        };
        let mut begin = 0;
        for block in &self.blocks {
            let end = self.text_before(block);
            if !push(&self.text[begin..end]) || !push(&block.bytes) {
                return count;
            }
            begin = end;
        }
        push(&self.text[begin..]);
        count
    }

    /// Removes `count` bytes, which have been written.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let before = self.blocks.front().map_or(self.text.len(), |block| self.text_before(block));
            let text_count = before.min(count);
            self.text.advance(text_count);
            self.text_written += text_count as u64;
            count -= text_count;
            let Some(block) = self.blocks.front_mut().filter(|_| count > 0) else { return };
            let block_count = block.bytes.len().min(count);
            block.bytes.advance(block_count);
            self.blocks_len -= block_count;
            count -= block_count;
            if block.bytes.is_empty() {
                self.blocks.pop_front();
            }
        }
    }

    /// Frees the text buffer if one large batch made it grow. Nothing must be left to write.
    pub(crate) fn shrink(&mut self) {
        if self.text.capacity() > MAX_IDLE_TEXT {
            self.text = BytesMut::new();
        }
    }

    /// Returns how many bytes of the text left go before a block.
    fn text_before(&self, block: &Block) -> usize {
        // At most the length of the text, so the cast is lossless.
        (block.text_offset - self.text_written) as usize
    }

    /// Returns all bytes left.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut pieces = vec![IoSlice::new(&[]); 2 * self.blocks.len() + 1];
        let count = self.pieces(&mut pieces);
        pieces[..count].iter().flat_map(|piece| piece.iter().copied()).collect()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity() + self.blocks_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Appends a text and a block for each pair of lengths; returns the output and the bytes it must hold.
    fn filled(parts: &[(usize, usize)]) -> (WriteBuffer, Vec<u8>) {
        let (mut output, mut whole) = (WriteBuffer::default(), Vec::new());
        let mut bytes = (0u8..251).cycle();
        for &(text, block) in parts {
            let text: Vec<u8> = bytes.by_ref().take(text).collect();
            let block: Bytes = bytes.by_ref().take(block).collect();
            output.text().extend_from_slice(&text);
            output.push_block(&block);
            whole.extend([&text[..], &block].concat());
        }
        (output, whole)
    }

    #[test]
    fn small_blocks_are_copied_and_large_ones_are_not() {
        let small = Bytes::from(vec![1; LARGE_BLOCK - 1]);
        let large = Bytes::from(vec![2; LARGE_BLOCK]);
        let mut output = WriteBuffer::default();
        output.push_block(&small);
        assert!(output.is_one_piece());
        output.push_block(&large);
        let mut pieces = [IoSlice::new(&[]); 4];
        assert_eq!(output.pieces(&mut pieces), 2);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_ne!(pieces[0].as_ptr(), small.as_ptr());
    }

    #[test]
    fn a_block_is_released_with_its_last_byte() {
        let block = Bytes::from(vec![1; LARGE_BLOCK]);
        let mut output = WriteBuffer::default();
        output.push_block(&block);
        output.text().extend_from_slice(b"\r\n");
        output.advance(LARGE_BLOCK - 1);
        assert!(!block.is_unique());
        output.advance(1);
        assert!(block.is_unique());
        assert_eq!(output.to_vec(), b"\r\n");
    }

    #[test]
    fn pieces_fills_no_more_than_its_argument() {
        let (output, whole) = filled(&[(3, LARGE_BLOCK); 5]);
        for room in 0..12 {
            let mut pieces = vec![IoSlice::new(&[]); room];
            let count = output.pieces(&mut pieces);
            assert_eq!(count, room.min(10));
            let written: Vec<u8> = pieces[..count].iter().flat_map(|piece| piece.iter().copied()).collect();
            assert!(whole.starts_with(&written));
        }
    }

    #[test]
    fn shrink_frees_the_buffer_of_a_large_batch() {
        let mut output = WriteBuffer::default();
        output.text().extend_from_slice(&vec![b'x'; MAX_IDLE_TEXT + 1]);
        output.advance(MAX_IDLE_TEXT + 1);
        output.shrink();
        assert_eq!(output.capacity(), 0);
    }

    proptest! {
        #[test]
        fn the_unwritten_bytes_are_left_after_any_writes(
            parts in prop::collection::vec((0usize..5, prop_oneof![0usize..5, LARGE_BLOCK - 2..LARGE_BLOCK + 3]), 0..8),
            steps in prop::collection::vec(prop_oneof![1usize..10, 1usize..3 * LARGE_BLOCK], 0..40),
        ) {
            let (mut output, whole) = filled(&parts);
            let mut rest = &whole[..];
            for step in steps {
                prop_assert_eq!(output.len(), rest.len());
                prop_assert_eq!(output.to_vec(), rest);
                prop_assert!(rest.starts_with(output.first_piece()));
                prop_assert!(rest.is_empty() || !output.first_piece().is_empty());
                let step = step.min(rest.len());
                output.advance(step);
                rest = &rest[step..];
            }
            output.text().extend_from_slice(b"end");
            prop_assert_eq!(output.to_vec(), [rest, b"end"].concat());
        }
    }
}
