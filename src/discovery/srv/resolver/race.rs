//! Tries the alternatives of a query one after another: DNS servers, or transports.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

/// How long the alternative that succeeded last is tried instead of the first one. Then both are tried at once.
const PREFERENCE: Duration = Duration::from_secs(60);

/// Alternatives in the order of their numbers, of which the one that succeeded last is tried first for a while.
#[derive(Debug, Default)]
pub(super) struct Race(Mutex<Option<Preferred>>);

/// An alternative other than the first that succeeded, and when.
#[derive(Debug, Clone, Copy)]
struct Preferred {
    number: usize,
    since: Instant,
}

impl Race {
    /// Tries the alternatives: the next one when those before it have failed, or after a head start.
    ///
    /// Returns the first success, or else the failure of the alternative with the lowest number; `None` if there are
    /// no alternatives. Has no time limit.
    pub(super) async fn run<T, E, F>(
        &self,
        alternatives: usize,
        head_start: Duration,
        start: impl Fn(usize) -> F,
    ) -> Option<Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let (order, mut head_starts) = self.order(alternatives, head_start);
        let mut order = order.into_iter();
        let mut in_flight = FuturesUnordered::new();
        let mut failure: Option<(usize, E)> = None;
        loop {
            if let Some(number) = order.next() {
                let attempt = start(number);
                in_flight.push(async move { (number, attempt.await) });
            } else if in_flight.is_empty() {
                return failure.map(|(_, error)| Err(error));
            }
            let has_next = order.len() > 0;
            let wait = if has_next { head_starts.next().unwrap_or(head_start) } else { Duration::MAX };
            tokio::select! {
                Some((number, outcome)) = in_flight.next() => match outcome {
                    Ok(success) => {
                        self.prefer(number, Instant::now());
                        return Some(Ok(success));
                    }
                    Err(error) if failure.as_ref().is_none_or(|(before, _)| number < *before) => {
                        failure = Some((number, error));
                    }
                    Err(_) => {}
                },
                () = sleep(wait), if has_next => {}
            }
        }
    }

    /// Returns the order of the alternatives, and the head starts.
    ///
    /// When a preference is over, the preferred alternative and the first one start together: what is faster stays.
    fn order(&self, alternatives: usize, head_start: Duration) -> (Vec<usize>, impl Iterator<Item = Duration> + use<>) {
        let preferred = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<usize> = (0..alternatives).collect();
        let mut first_head_start = head_start;
        if let Some(Preferred { number, since }) = preferred {
            order[..=number].rotate_right(1);
            if since.elapsed() >= PREFERENCE {
                first_head_start = Duration::ZERO;
            }
        }
        (order, std::iter::once(first_head_start))
    }

    fn prefer(&self, number: usize, now: Instant) {
        let mut preferred = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *preferred {
            // Not prolonged by each success, so that the first one gets another chance.
            Some(before) if before.number == number && now - before.since < PREFERENCE => {}
            _ => *preferred = (number > 0).then_some(Preferred { number, since: now }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_START: Duration = Duration::from_millis(500);

    /// Runs alternatives that succeed or fail after a time, and returns the outcome and how long it took.
    async fn run(race: &Race, alternatives: &[(u64, Result<(), ()>)]) -> (Option<Result<usize, usize>>, u128) {
        let start = Instant::now();
        let outcome = race
            .run(alternatives.len(), HEAD_START, |number| async move {
                let (millis, outcome) = alternatives[number];
                sleep(Duration::from_millis(millis)).await;
                outcome.map(|()| number).map_err(|()| number)
            })
            .await;
        (outcome, start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_starts_after_a_failure_or_a_head_start() {
        let slow = 60_000;
        for (alternatives, outcome, millis) in [
            (&[][..], None, 0),
            (&[(10, Ok(()))], Some(Ok(0)), 10),
            (&[(10, Err(()))], Some(Err(0)), 10),
            (&[(10, Err(())), (20, Ok(()))], Some(Ok(1)), 30),
            (&[(slow, Ok(())), (20, Ok(()))], Some(Ok(1)), 520),
            (&[(slow, Ok(())), (slow, Ok(())), (20, Ok(()))], Some(Ok(2)), 1_020),
            (&[(600, Ok(())), (slow, Ok(()))], Some(Ok(0)), 600),
            (&[(10, Err(())), (20, Err(())), (30, Err(()))], Some(Err(0)), 60),
            (&[(700, Err(())), (800, Ok(()))], Some(Ok(1)), 1_300),
        ] {
            assert_eq!(run(&Race::default(), alternatives).await, (outcome, millis), "{alternatives:?}");
        }
    }

    /// docs/discovery.md, row 53.
    #[tokio::test(start_paused = true)]
    async fn what_succeeded_last_is_tried_first_for_a_while() {
        let race = Race::default();
        let first_is_dead = [(600_000, Err(())), (20, Ok(()))];
        assert_eq!(run(&race, &first_is_dead).await, (Some(Ok(1)), 520));
        for _ in 0..20 {
            assert_eq!(run(&race, &first_is_dead).await, (Some(Ok(1)), 20));
            sleep(Duration::from_secs(7)).await;
        }
        // However often the other one has succeeded, the first one gets another chance after a while.
        let both_are_well = [(10, Ok(())), (20, Ok(()))];
        let mut winners = Vec::new();
        for _ in 0..20 {
            winners.push(run(&race, &both_are_well).await.0.unwrap().unwrap());
            sleep(Duration::from_secs(7)).await;
        }
        let until_first = winners.iter().position(|number| *number == 0).unwrap();
        assert!((1..10).contains(&until_first) && winners[until_first..].iter().all(|number| *number == 0));
        assert_eq!(run(&race, &first_is_dead).await, (Some(Ok(1)), 520));
    }
}
