//! Timers for callers on any thread, outside a tokio runtime too.
//!
//! tokio's timers belong to a runtime, and fire only while it runs. A caller on another runtime than its client's must
//! not depend on the client's, which may be blocked or not driven at all. A thread of the crate keeps the deadlines of
//! such callers. It starts with the first of them, and sleeps while no timer is due.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::{LazyLock, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, Builder, Handle};
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

/// Longer than any wait.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The limit of a [`timeout`] has passed.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// Returns the runtime of the current thread; `None` outside a runtime.
pub(crate) fn current_runtime() -> Option<runtime::Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

/// Returns a timer that fires whatever becomes of the current runtime. `None` if no thread could be started for it.
pub(crate) fn detached_sleep_until(deadline: Instant) -> Option<Sleep> {
    static TIMERS: LazyLock<Option<Handle>> = LazyLock::new(start_timer_thread);
    let _guard = TIMERS.as_ref()?.enter();
    Some(tokio::time::sleep_until(deadline))
}

fn start_timer_thread() -> Option<Handle> {
    let (started, is_started) = mpsc::channel();
    let run = move || {
        let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
        if started.send(runtime.handle().clone()).is_ok() {
            runtime.block_on(pending::<()>());
        }
    };
    thread::Builder::new().name("memring-timers".to_owned()).spawn(run).ok()?;
    is_started.recv().ok()
}

/// As tokio's `sleep_until`, and outside a runtime too. Completes at once if no timer can be had.
pub(crate) async fn sleep_until(deadline: Instant) {
    let sleep = match Handle::try_current() {
        Ok(_) => Some(tokio::time::sleep_until(deadline)),
        Err(_) => detached_sleep_until(deadline),
    };
    if let Some(sleep) = sleep {
        sleep.await;
    }
}

/// As tokio's `sleep`, and outside a runtime too.
pub(crate) async fn sleep(duration: Duration) {
    sleep_until(after(duration)).await;
}

/// As tokio's `timeout_at`, and outside a runtime too.
pub(crate) async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    before(sleep_until(deadline), future).await
}

/// As tokio's `timeout`, and outside a runtime too.
pub(crate) async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    timeout_at(after(limit), future).await
}

/// As [`timeout_at`], by a timer of the thread for callers on another runtime than `home`.
pub(crate) async fn timeout_away_from<T>(
    home: Option<runtime::Id>,
    deadline: Instant,
    future: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    if current_runtime() == home {
        return timeout_at(deadline, future).await;
    }
    let sleep = async {
        if let Some(sleep) = detached_sleep_until(deadline) {
            sleep.await;
        }
    };
    before(sleep, future).await
}

async fn before<T>(end: impl Future<Output = ()>, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    // Unconstrained, because a future that uses up the task's budget in every poll would have no time limit.
    let (mut future, mut end) = (pin!(future), pin!(unconstrained(end)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + FAR)
}
