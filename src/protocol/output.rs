//! What is to be written: text, and large data blocks in their places between it.
//!
//! A small data block is copied into the text, so that a batch of them is one piece. A large one stays where its caller has
//! it, and is let go of as soon as its last byte is written.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Data blocks from this size on are not copied.
pub(crate) const LARGE_BLOCK: usize = 4 * 1024;

/// Room for text that grew beyond this for one batch is not kept.
const TEXT_KEPT: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Output {
    text: BytesMut,
    /// Bytes of text that were written, and are gone.
    text_gone: u64,
    blocks: VecDeque<Block>,
    /// The bytes of all blocks.
    blocks_len: usize,
}

#[derive(Debug)]
struct Block {
    /// How much text goes before it, counted as `text_gone` is.
    after: u64,
    /// What is left of it.
    bytes: Bytes,
}

impl Output {
    /// How many bytes are to be written.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.blocks_len
    }

    /// Where to append everything but data blocks.
    pub(crate) fn text(&mut self) -> &mut BytesMut {
        &mut self.text
    }

    /// How much of a data block will be copied into the text.
    pub(crate) fn copied(block: &Bytes) -> usize {
        if block.len() < LARGE_BLOCK { block.len() } else { 0 }
    }

    /// Appends a data block.
    pub(crate) fn push_block(&mut self, block: &Bytes) {
        if block.len() < LARGE_BLOCK {
            self.text.extend_from_slice(block);
        } else {
            self.blocks_len += block.len();
            self.blocks.push_back(Block { after: self.text_gone + self.text.len() as u64, bytes: block.clone() });
        }
    }

    /// Whether what is left is in one piece.
    pub(crate) fn is_one_piece(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The first piece of what is left; empty if there is nothing left.
    pub(crate) fn first_piece(&self) -> &[u8] {
        match self.blocks.front() {
            None => &self.text,
            Some(block) if block.after == self.text_gone => &block.bytes,
            Some(block) => &self.text[..self.text_before(block)],
        }
    }

    /// Puts as many pieces as there is room for into `pieces`, and says how many.
    pub(crate) fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut put = |piece: &'a [u8]| {
            if piece.is_empty() {
                return true;
            }
            let Some(place) = pieces.get_mut(count) else { return false };
            *place = IoSlice::new(piece);
            count += 1;
            true
        };
        let mut begin = 0;
        for block in &self.blocks {
            let end = self.text_before(block);
            if !put(&self.text[begin..end]) || !put(&block.bytes) {
                return count;
            }
            begin = end;
        }
        put(&self.text[begin..]);
        count
    }

    /// So many bytes were written.
    pub(crate) fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let before = self.blocks.front().map_or(self.text.len(), |block| self.text_before(block));
            let of_text = before.min(count);
            self.text.advance(of_text);
            self.text_gone += of_text as u64;
            count -= of_text;
            let Some(block) = self.blocks.front_mut().filter(|_| count > 0) else { return };
            let of_block = block.bytes.len().min(count);
            block.bytes.advance(of_block);
            self.blocks_len -= of_block;
            count -= of_block;
            if block.bytes.is_empty() {
                self.blocks.pop_front();
            }
        }
    }

    /// Lets go of room that one large batch needed. There must be nothing left to write.
    pub(crate) fn shrink(&mut self) {
        if self.text.capacity() > TEXT_KEPT {
            self.text = BytesMut::new();
        }
    }

    /// How much of the text goes before a block.
    fn text_before(&self, block: &Block) -> usize {
        // No more than the length of the text, and so no more than fits.
        (block.after - self.text_gone) as usize
    }

    /// All that is left.
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

    /// A block of each size around the limit, between texts, some of them empty.
    fn filled(parts: &[(usize, usize)]) -> (Output, Vec<u8>) {
        let (mut output, mut whole) = (Output::default(), Vec::new());
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
        let mut output = Output::default();
        output.push_block(&small);
        assert!(output.is_one_piece());
        output.push_block(&large);
        let mut pieces = [IoSlice::new(&[]); 4];
        assert_eq!(output.pieces(&mut pieces), 2);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_ne!(pieces[0].as_ptr(), small.as_ptr());
    }

    #[test]
    fn a_block_is_let_go_of_as_soon_as_it_is_written() {
        let block = Bytes::from(vec![1; LARGE_BLOCK]);
        let mut output = Output::default();
        output.push_block(&block);
        output.text().extend_from_slice(b"\r\n");
        output.advance(LARGE_BLOCK - 1);
        assert!(!block.is_unique());
        output.advance(1);
        assert!(block.is_unique());
        assert_eq!(output.to_vec(), b"\r\n");
    }

    #[test]
    fn no_more_pieces_than_there_is_room_for() {
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
    fn room_for_one_large_batch_is_not_kept() {
        let mut output = Output::default();
        output.text().extend_from_slice(&vec![b'x'; TEXT_KEPT + 1]);
        output.advance(TEXT_KEPT + 1);
        output.shrink();
        assert_eq!(output.capacity(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_written_the_rest_is_left(
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
            // What is added goes behind it.
            output.text().extend_from_slice(b"end");
            prop_assert_eq!(output.to_vec(), [rest, b"end"].concat());
        }
    }
}
