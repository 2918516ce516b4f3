//! The changes that a source reports by itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::discovery::panic_guard::catch_panics;
use crate::discovery::{Discovery, DiscoveryError};

/// Waits for the changes that a source reports: see [`Discovery::changed`].
pub(super) struct SourceChanges<D> {
    source: Arc<D>,
    /// Kept across polls, so that no change is lost. `None` after a report, until the next poll begins.
    report: Option<BoxFuture<'static, Result<(), DiscoveryError>>>,
}

impl<D: Discovery> SourceChanges<D> {
    /// Waits for nothing yet.
    pub(super) fn new(source: Arc<D>) -> Self {
        Self { source, report: None }
    }

    /// Waits for another report if the last one has arrived. A poll of the source begins.
    ///
    /// At most one report for each poll: a source that reports changes without end must not keep the client busy.
    pub(super) fn watch(&mut self) {
        let source = &self.source;
        self.report.get_or_insert_with(|| {
            let source = Arc::clone(source);
            Box::pin(catch_panics(async move {
                source.changed().await;
                Ok(())
            }))
        });
    }

    /// Waits for a report: a change, or an error if the source panicked. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<(), DiscoveryError> {
        let Some(report) = &mut self.report else { return std::future::pending().await };
        let outcome = report.await;
        self.report = None;
        outcome
    }
}
