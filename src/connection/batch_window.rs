//! How far away a server is, and so how many batches may be under way to it.
//!
//! Close by, one: the next leaves when the last is answered, and is as large as what came meanwhile. Over a longer link that
//! would leave the link idle for most of a round trip, and let a request wait for one that is not its own. So there may be
//! one batch for so many microseconds of the round trip: batches stay large, and no request waits for long.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A batch costs some 10 us at either end, so this keeps what is spent on batches in bounds.
const ROUND_TRIP_PER_BATCH: Duration = Duration::from_micros(100);
const MOST_BATCHES: u32 = 16;

/// The shortest of so many round trips is what the link takes: the others were the server's, or this machine's.
const WINDOW: u32 = 16;

/// With several batches under way no round trip can be told from waiting, so all are waited for now and then.
const BATCHES_BETWEEN_SAMPLES: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct BatchWindow {
    /// Where each batch under way ends, in all that was ever encoded.
    under_way: VecDeque<u64>,
    /// A batch was sent with nothing else under way, and nothing has come since.
    sent_alone: Option<Instant>,
    round_trip: Option<Duration>,
    shortest: Option<Duration>,
    samples: u32,
    since_sample: u32,
}

impl BatchWindow {
    /// How many batches may be under way.
    fn batches(&self) -> u32 {
        let Some(round_trip) = self.round_trip else { return 1 };
        if self.since_sample >= BATCHES_BETWEEN_SAMPLES {
            return 1;
        }
        let batches = round_trip.as_micros() / ROUND_TRIP_PER_BATCH.as_micros();
        u32::try_from(batches).unwrap_or(MOST_BATCHES).clamp(1, MOST_BATCHES)
    }

    /// Whether one more batch may be sent, if everything before `answered` is.
    pub(super) fn has_room(&mut self, answered: u64) -> bool {
        while self.under_way.front().is_some_and(|&end| end <= answered) {
            self.under_way.pop_front();
        }
        self.under_way.len() < self.batches() as usize
    }

    /// A batch that ends there is being sent.
    pub(super) fn sent(&mut self, end: u64, now: Instant) {
        self.sent_alone = self.under_way.is_empty().then_some(now);
        self.since_sample += 1;
        self.under_way.push_back(end);
    }

    /// Something has come.
    pub(super) fn received(&mut self, now: Instant) {
        let Some(sent) = self.sent_alone.take() else { return };
        let sample = now - sent;
        self.since_sample = 0;
        self.samples += 1;
        let shortest = self.shortest.map_or(sample, |shortest| shortest.min(sample));
        self.shortest = Some(shortest);
        if self.samples == WINDOW {
            (self.round_trip, self.shortest, self.samples) = (Some(shortest), None, 0);
        } else if self.round_trip.is_some_and(|known| sample < known) {
            self.round_trip = Some(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends and answers batches one by one.
    fn exchange(link: &mut BatchWindow, round_trips: impl IntoIterator<Item = u64>) {
        let mut now = Instant::now();
        for micros in round_trips {
            assert!(link.has_room(u64::MAX));
            link.sent(1, now);
            now += Duration::from_micros(micros);
            link.received(now);
            // What else comes of the same batch says nothing.
            link.received(now + Duration::from_secs(1));
        }
    }

    /// How many batches it takes at once.
    fn room(link: &mut BatchWindow) -> u32 {
        assert!(link.has_room(u64::MAX));
        let mut sent = 0;
        while link.has_room(0) {
            sent += 1;
            link.sent(u64::from(sent), Instant::now());
        }
        sent
    }

    #[test]
    fn one_batch_until_the_link_is_known_and_then_what_it_bears() {
        for (round_trip, batches) in [(10, 1), (199, 1), (200, 2), (1_000, 10), (1_000_000, 16)] {
            let mut link = BatchWindow::default();
            exchange(&mut link, [round_trip; WINDOW as usize - 1]);
            assert_eq!(room(&mut link), 1);
            let mut link = BatchWindow::default();
            exchange(&mut link, [round_trip; WINDOW as usize]);
            assert_eq!(room(&mut link), batches, "{round_trip} us");
        }
    }

    #[test]
    fn a_slow_answer_is_no_long_link() {
        let mut link = BatchWindow::default();
        exchange(&mut link, (0..3 * u64::from(WINDOW)).map(|n| if n % 8 == 3 { 40 } else { 5_000 }));
        assert_eq!(room(&mut link), 1);
    }

    #[test]
    fn a_link_that_turns_out_shorter_is_believed_at_once_and_a_longer_one_after_a_window() {
        let mut link = BatchWindow::default();
        exchange(&mut link, [1_000; WINDOW as usize]);
        exchange(&mut link, [50]);
        assert_eq!(room(&mut link), 1);
        exchange(&mut link, [1_000; 2 * WINDOW as usize]);
        assert_eq!(room(&mut link), 10);
    }

    #[test]
    fn all_are_waited_for_now_and_then() {
        let mut link = BatchWindow::default();
        exchange(&mut link, [1_000; WINDOW as usize]);
        let now = Instant::now();
        let mut sent: u64 = 0;
        // Always one under way: there is nothing to measure.
        while link.has_room(sent.saturating_sub(1)) {
            sent += 1;
            link.sent(sent, now);
            assert!(sent < 1_000, "it never stops");
        }
        assert!(!link.has_room(sent - 1));
        assert!(link.has_room(sent));
        link.sent(sent + 1, now);
        link.received(now + Duration::from_micros(50));
        assert!(link.has_room(sent + 1));
        assert_eq!(room(&mut link), 1);
    }
}
