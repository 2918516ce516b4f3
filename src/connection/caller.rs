//! Which runtime a caller is on.

use tokio::runtime;
use tokio::task;

use crate::timer::current_runtime;

/// The runtime of a call's caller.
///
/// Asking tokio costs two writes to memory that all threads share. A task never changes its runtime, and a caller
/// often gets the call again that it just released, so the answer is kept with the task that it is true of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Caller {
    task: Option<task::Id>,
    runtime: Option<runtime::Id>,
}

impl Caller {
    /// Takes note of the current task, and returns its runtime.
    #[inline]
    pub(super) fn note(&mut self) -> Option<runtime::Id> {
        let task = task::try_id();
        if task.is_none() || task != self.task {
            *self = Self { task, runtime: current_runtime() };
        }
        self.runtime
    }
}
