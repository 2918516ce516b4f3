//! How many batches may be in flight on a connection, given its round-trip time.
//!
//! On a short link, one: the next batch leaves when the last is answered, and holds all that arrived meanwhile. On a
//! longer link that would leave the link idle for most of a round trip, and let a request wait for a batch that is not
//! its own. So one batch may be in flight for every 100 us of the round trip: batches stay large, and no request waits
//! for long.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The part of a round trip that allows one batch. A batch costs some 10 us at either end, so this bounds the share of
/// time spent on batches.
const ROUND_TRIP_PER_BATCH: Duration = Duration::from_micros(100);
const MOST_BATCHES: u32 = 16;

/// How many samples are measured; the shortest is the round trip of the link. The others include time of the server, or
/// of this machine.
const SAMPLES: u32 = 16;

/// With several batches in flight, a round trip cannot be distinguished from the wait for earlier batches. So after
/// this many batches without a sample, all batches are waited for once.
const BATCHES_BETWEEN_SAMPLES: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct BatchWindow {
    /// Where each batch in flight ends, in all bytes ever encoded.
    in_flight: VecDeque<u64>,
    /// When a batch was sent with no other in flight, until the first reply arrives.
    sent_alone: Option<Instant>,
    round_trip: Option<Duration>,
    shortest_sample: Option<Duration>,
    samples: u32,
    batches_since_sample: u32,
}

impl BatchWindow {
    /// How many batches may be in flight.
    fn limit(&self) -> u32 {
        let Some(round_trip) = self.round_trip else { return 1 };
        if self.batches_since_sample >= BATCHES_BETWEEN_SAMPLES {
            return 1;
        }
        let batches = round_trip.as_micros() / ROUND_TRIP_PER_BATCH.as_micros();
        u32::try_from(batches).unwrap_or(MOST_BATCHES).clamp(1, MOST_BATCHES)
    }

    /// Whether one more batch may be sent, now that the first `answered` of all encoded bytes are answered.
    pub(super) fn has_room(&mut self, answered: u64) -> bool {
        while self.in_flight.front().is_some_and(|&end| end <= answered) {
            self.in_flight.pop_front();
        }
        self.in_flight.len() < self.limit() as usize
    }

    /// Records that a batch is sent, which ends at `end` of all encoded bytes.
    pub(super) fn sent(&mut self, end: u64, now: Instant) {
        self.sent_alone = self.in_flight.is_empty().then_some(now);
        self.batches_since_sample += 1;
        self.in_flight.push_back(end);
    }

    /// Records that a reply arrived.
    pub(super) fn received(&mut self, now: Instant) {
        let Some(sent) = self.sent_alone.take() else { return };
        let sample = now - sent;
        self.batches_since_sample = 0;
        self.samples += 1;
        let shortest = self.shortest_sample.map_or(sample, |shortest| shortest.min(sample));
        self.shortest_sample = Some(shortest);
        if self.samples == SAMPLES {
            (self.round_trip, self.shortest_sample, self.samples) = (Some(shortest), None, 0);
        } else if self.round_trip.is_some_and(|known| sample < known) {
            self.round_trip = Some(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends batches one by one, each answered after this many microseconds.
    fn exchange(window: &mut BatchWindow, round_trips: impl IntoIterator<Item = u64>) {
        let mut now = Instant::now();
        for micros in round_trips {
            assert!(window.has_room(u64::MAX));
            window.sent(1, now);
            now += Duration::from_micros(micros);
            window.received(now);
            // Later replies to the same batch are no samples.
            window.received(now + Duration::from_secs(1));
        }
    }

    /// How many batches may be in flight.
    fn measured_limit(window: &mut BatchWindow) -> u32 {
        assert!(window.has_room(u64::MAX));
        let mut sent = 0;
        while window.has_room(0) {
            sent += 1;
            window.sent(u64::from(sent), Instant::now());
        }
        sent
    }

    #[test]
    fn one_batch_until_the_round_trip_is_known_and_then_one_per_100_us() {
        for (round_trip, limit) in [(10, 1), (199, 1), (200, 2), (1_000, 10), (1_000_000, 16)] {
            let mut window = BatchWindow::default();
            exchange(&mut window, [round_trip; SAMPLES as usize - 1]);
            assert_eq!(measured_limit(&mut window), 1);
            let mut window = BatchWindow::default();
            exchange(&mut window, [round_trip; SAMPLES as usize]);
            assert_eq!(measured_limit(&mut window), limit, "{round_trip} us");
        }
    }

    #[test]
    fn a_slow_server_is_not_taken_for_a_long_link() {
        let mut window = BatchWindow::default();
        exchange(&mut window, (0..3 * u64::from(SAMPLES)).map(|n| if n % 8 == 3 { 40 } else { 5_000 }));
        assert_eq!(measured_limit(&mut window), 1);
    }

    #[test]
    fn a_shorter_round_trip_is_adopted_at_once_and_a_longer_one_after_16_samples() {
        let mut window = BatchWindow::default();
        exchange(&mut window, [1_000; SAMPLES as usize]);
        exchange(&mut window, [50]);
        assert_eq!(measured_limit(&mut window), 1);
        exchange(&mut window, [1_000; 2 * SAMPLES as usize]);
        assert_eq!(measured_limit(&mut window), 10);
    }

    #[test]
    fn all_batches_are_waited_for_now_and_then_to_take_a_sample() {
        let mut window = BatchWindow::default();
        exchange(&mut window, [1_000; SAMPLES as usize]);
        let now = Instant::now();
        let mut sent: u64 = 0;
        // One batch is always in flight, so no sample can be taken.
        while window.has_room(sent.saturating_sub(1)) {
            sent += 1;
            window.sent(sent, now);
            assert!(sent < 1_000, "no sample was due");
        }
        assert!(!window.has_room(sent - 1));
        assert!(window.has_room(sent));
        window.sent(sent + 1, now);
        window.received(now + Duration::from_micros(50));
        assert!(window.has_room(sent + 1));
        assert_eq!(measured_limit(&mut window), 1);
    }
}
