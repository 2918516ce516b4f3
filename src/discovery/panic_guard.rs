//! Turns panics of a source into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::discovery::DiscoveryError;

/// Runs a source's future. If the future panics, returns a [`DiscoveryError::Transport`] and polls it no more.
pub(super) async fn catch_panics<T>(
    future: impl Future<Output = Result<T, DiscoveryError>> + Send,
) -> Result<T, DiscoveryError> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(DiscoveryError::Transport("the source panicked".into()))))
    })
    .await
}
