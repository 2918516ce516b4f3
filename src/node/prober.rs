//! Probes a node whose circuit breaker is open, in the background: no caller waits for a probe.
//!
//! A probe is a classic `get`, in turn of one of the node's keys that failed and of a reserved key. A connection with
//! replies pending takes no probe, because any of these replies shows the same. So a probe may wait until the silence
//! timeout has closed such a connection, and is then sent on the next. A stopped process that continues replies to
//! whichever is in its socket.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::Shared;
use crate::connection::{GetForm, NewCall, ResponseFuture};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::Item;
use crate::key::{InvalidKey, Key};

/// Probed with every other probe, and if no key is known that failed.
const RESERVED_KEY: &[u8] = b"memring:probe";

/// Sends the probes that the node's breaker plans. Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut health = shared.health.subscribe();
    loop {
        let probe_at = health.borrow_and_update().probe_at();
        match probe_at {
            // Never fails, because `shared` holds the sender.
            None => drop(health.changed().await),
            Some(at) => {
                if timeout_at(at, health.changed()).await.is_err() {
                    shared.probe().await;
                }
            }
        }
    }
}

impl Shared {
    /// Sends a probe, and waits for its outcome or another sign of life.
    async fn probe(&self) {
        let key = self.probe_started();
        let mut health = self.health.subscribe();
        let outcome = tokio::select! {
            outcome = self.get(key.as_ref()) => outcome,
            _ = health.wait_for(|health| !health.is_half_open()) => return,
        };
        let has_replied = match outcome {
            Ok(_) => true,
            // An error line is a reply.
            Err(error) => error.delivery() == Delivery::Answered || error.kind() == ErrorKind::Server,
        };
        self.probe_ended(has_replied);
    }

    /// The deadline is longer than a connection that is silent already can last, plus one silence timeout.
    async fn get(&self, key: Option<&Key>) -> Result<Option<Item>, Error> {
        let deadline = Instant::now() + self.settings.silence_timeout() * 2;
        let call = NewCall::get(GetForm::default(), deadline, |place| {
            match key {
                Some(key) => *place = key.clone(),
                None => place.assign(&[], RESERVED_KEY)?,
            }
            Ok::<_, InvalidKey>(())
        })?;
        ResponseFuture::queue_probe(call, &self.queue)?.await
    }
}
