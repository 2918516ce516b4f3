//! Keys that a node may answer with an error line.
//!
//! An error line in reply to a retrieval or a store ends the connection, and fails every call in flight. A proxy may
//! answer one key like that every time, because the server behind it is down, and serve all others. So the keys of a
//! rejected line become *suspect*: the node's connections send a call with such a key apart, with no other caller's
//! call in flight, until a reply shows that the key is not the cause. If the rejected line had one key only, that key
//! is the cause. It travels alone for a while, and the other keys of the line that it was first rejected with are
//! cleared.
//!
//! Keys are kept as hashes. A key with the hash of a suspect key travels alone, too.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::call::Call;
use super::lock;
use crate::protocol::{MetaVerb, Request};

/// How long a key stays suspect after its last error line. A key that is in use and still rejected stays suspect.
const TRUSTED_AFTER: Duration = Duration::from_secs(60);

/// The most keys remembered, those of a few lines. Beyond them, the key whose time ends first is trusted again.
const MOST_KEYS: usize = 512;

/// The suspect keys of a node, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct SuspectKeys {
    /// Whether there are any. Read without the lock, because nearly always there are none.
    is_in_use: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the hash of the key.
    suspects: HashMap<u64, Suspicion>,
    /// When the first of them is trusted again.
    next_end: Option<Instant>,
    /// How many lines were rejected: the number of the next one.
    rejections: u64,
}

#[derive(Debug)]
struct Suspicion {
    /// The number of the rejected line that first held the key.
    rejection: u64,
    /// The key was rejected in a line of its own.
    is_cause: bool,
    until: Instant,
}

/// Returns the hash of the key with this index, of a request that an error line may end the connection for. A key that
/// can be read may still be rejected in a store.
fn key_hash(request: &Request, index: usize) -> Option<u64> {
    let (key, seed) = match request {
        Request::Get { keys, touch, .. } => (keys.as_slice().get(index)?.as_bytes(), u64::from(touch.is_some())),
        Request::Store { key, .. } if index == 0 => (key.as_bytes(), 2),
        Request::Meta(request) if index == 0 && request.verb == MetaVerb::Set => (request.key.as_bytes(), 2),
        _ => return None,
    };
    Some(xxh3_64_with_seed(key, seed))
}

fn key_hashes(request: &Request) -> impl Iterator<Item = u64> {
    (0..).map_while(|index| key_hash(request, index))
}

impl SuspectKeys {
    /// Whether any key is suspect.
    #[inline]
    pub(super) fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
    }

    /// Takes note that the server replied with an error line to a line with these keys: each call with the indices of
    /// its keys in the line.
    pub(super) fn line_rejected<'a>(&self, line: impl Iterator<Item = (&'a Arc<Call>, Range<usize>)>, now: Instant) {
        let keys = line.flat_map(|(call, indices)| indices.filter_map(|index| key_hash(call.request(), index)));
        let mut keys: Vec<u64> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        self.update(now, |state| state.line_rejected(&keys, now));
    }

    /// Removes the calls with suspect keys from a batch, and returns them.
    pub(super) fn remove_suspects(&self, batch: &mut VecDeque<Arc<Call>>, now: Instant) -> VecDeque<Arc<Call>> {
        self.update(now, |state| {
            let is_suspect = |call: &Arc<Call>| key_hashes(call.request()).any(|key| state.suspects.contains_key(&key));
            let (suspects, trusted) = batch.drain(..).partition(is_suspect);
            *batch = trusted;
            suspects
        })
    }

    /// Returns which keys of a call are suspect.
    pub(super) fn suspect_indices(&self, request: &Request) -> Vec<usize> {
        let state = lock(&self.state);
        let keys = key_hashes(request).enumerate();
        keys.filter(|(_, key)| state.suspects.contains_key(key)).map(|(index, _)| index).collect()
    }

    /// Takes note that the server answered this request properly.
    pub(super) fn answered(&self, request: &Request, now: Instant) {
        self.update(now, |state| {
            for key in key_hashes(request) {
                // A key that was a cause stays apart: a server behind a proxy that comes and goes would otherwise cost
                // other callers a call each time.
                if state.suspects.get(&key).is_some_and(|suspicion| !suspicion.is_cause) {
                    state.suspects.remove(&key);
                }
            }
        });
    }

    /// Changes the state, after the keys whose time is over were removed.
    fn update<T>(&self, now: Instant, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        if state.next_end.is_some_and(|end| end <= now) {
            state.suspects.retain(|_, suspicion| suspicion.until > now);
            state.next_end = state.suspects.values().map(|suspicion| suspicion.until).min();
        }
        let outcome = change(&mut state);
        self.is_in_use.store(!state.suspects.is_empty(), Ordering::Relaxed);
        outcome
    }
}

impl State {
    /// Makes the keys of a rejected line suspect. A single key is the cause.
    fn line_rejected(&mut self, keys: &[u64], now: Instant) {
        let (rejection, until) = (self.rejections, now + TRUSTED_AFTER);
        self.rejections += 1;
        for &key in keys.iter().take(MOST_KEYS) {
            if !self.suspects.contains_key(&key) && self.suspects.len() == MOST_KEYS {
                self.trust_oldest();
            }
            let suspicion = self.suspects.entry(key).or_insert(Suspicion { rejection, is_cause: false, until });
            suspicion.until = until;
        }
        if let [key] = keys
            && let Some(cause) = self.suspects.get_mut(key)
        {
            cause.is_cause = true;
            // The cause is known, so the other keys of the line are not to blame.
            let rejection = std::mem::replace(&mut cause.rejection, rejection);
            self.suspects.retain(|_, other| other.is_cause || other.rejection != rejection);
        }
        self.next_end = self.suspects.values().map(|suspicion| suspicion.until).min();
    }

    fn trust_oldest(&mut self) {
        let oldest = self.suspects.iter().min_by_key(|(_, suspicion)| suspicion.until).map(|(&key, _)| key);
        if let Some(key) = oldest {
            self.suspects.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::protocol::Keys;

    fn get(keys: &[&str]) -> Arc<Call> {
        let keys = Keys::Many(keys.iter().map(|key| Key::new(key).unwrap()).collect());
        Arc::new(Call::new(Request::Get { keys, cas: false, touch: None }, Instant::now()))
    }

    fn reject(suspects: &SuspectKeys, keys: &[&str], now: Instant) {
        suspects.line_rejected([(&get(keys), 0..keys.len())].into_iter(), now);
    }

    /// Which of these keys are suspect.
    fn suspects_among<'a>(suspects: &SuspectKeys, keys: &[&'a str], now: Instant) -> Vec<&'a str> {
        let is_suspect = |key: &&str| !suspects.remove_suspects(&mut VecDeque::from([get(&[key])]), now).is_empty();
        keys.iter().copied().filter(is_suspect).collect()
    }

    #[test]
    fn the_keys_of_a_rejected_line_are_suspect_until_the_cause_is_known() {
        let (suspects, now) = (SuspectKeys::default(), Instant::now());
        reject(&suspects, &["a", "b", "c"], now);
        reject(&suspects, &["x", "y"], now);
        assert_eq!(suspects_among(&suspects, &["a", "b", "c", "d", "x"], now), ["a", "b", "c", "x"]);
        suspects.answered(get(&["a"]).request(), now);
        assert_eq!(suspects_among(&suspects, &["a", "b", "c"], now), ["b", "c"]);
        reject(&suspects, &["b"], now);
        assert_eq!(suspects_among(&suspects, &["a", "b", "c", "x", "y"], now), ["b", "x", "y"]);
        suspects.answered(get(&["b"]).request(), now);
        assert_eq!(suspects_among(&suspects, &["b"], now), ["b"]);
    }

    #[test]
    fn only_the_keys_in_the_rejected_line_are_suspect() {
        let (suspects, now) = (SuspectKeys::default(), Instant::now());
        let call = get(&["a", "b", "c", "d"]);
        suspects.line_rejected([(&call, 1..3)].into_iter(), now);
        assert_eq!(suspects.suspect_indices(call.request()), [1, 2]);
    }

    #[test]
    fn a_key_is_trusted_again_a_while_after_its_last_error_line() {
        let (suspects, now) = (SuspectKeys::default(), Instant::now());
        assert!(!suspects.is_in_use());
        reject(&suspects, &["a"], now);
        reject(&suspects, &["b"], now + TRUSTED_AFTER / 2);
        assert_eq!(suspects_among(&suspects, &["a", "b"], now + TRUSTED_AFTER), ["b"]);
        assert!(suspects.is_in_use());
        assert!(suspects_among(&suspects, &["a", "b"], now + 2 * TRUSTED_AFTER).is_empty());
        assert!(!suspects.is_in_use());
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_the_latest_stay() {
        let (suspects, now) = (SuspectKeys::default(), Instant::now());
        for number in 0..2 * MOST_KEYS {
            reject(&suspects, &[&number.to_string()], now + Duration::from_millis(number as u64));
        }
        assert_eq!(lock(&suspects.state).suspects.len(), MOST_KEYS);
        let (oldest, latest) = ("0", (2 * MOST_KEYS - 1).to_string());
        assert_eq!(suspects_among(&suspects, &[oldest, &latest], now), [&*latest]);
    }
}
