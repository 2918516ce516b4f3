//! A sustained load, reported once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::interrupt::interrupted;
use crate::session::Session;
use crate::tally::{Recorder, Tally};

/// The delay of a second's report, so that operations that end with the second are counted in it.
const REPORT_DELAY: Duration = Duration::from_millis(20);

/// Keeps up a load for `seconds`, or until interrupted, and reports each second and each topology change.
pub(crate) async fn watch(session: &mut Session, seconds: u64) {
    session.report.text(&format!("\n{} workers for {seconds} s", session.options.concurrency));
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let recorder = Arc::new(Recorder::since(start));
    let running = session.load.start(&recorder, end);

    let mut total = Tally::default();
    let mut changes_ended = false;
    // Seconds follow the clock, even when no operation ends.
    for second in 1..seconds {
        let due = start + Duration::from_secs(second) + REPORT_DELAY;
        if !wait_until(session, due, &mut changes_ended).await {
            // The workers still running end with the program.
            let tally = recorder.take(u64::MAX);
            total.merge(&tally);
            session.report.text("interrupted");
            return finish(session, &total);
        }
        report_second(session, second, &recorder.take(second), &mut total);
    }
    // Operations that began in the last second may end after it.
    if !wait_until(session, end, &mut changes_ended).await {
        session.report.text("interrupted");
    } else {
        session.load.stop(running).await;
    }
    report_second(session, seconds, &recorder.take(u64::MAX), &mut total);
    finish(session, &total);
}

/// Waits until `due` and reports topology changes meanwhile. Returns `false` if interrupted.
async fn wait_until(session: &mut Session, due: Instant, changes_ended: &mut bool) -> bool {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => return true,
            change = session.changes.changed(), if !*changes_ended => match change {
                Some(change) => session.record_change(&change),
                None => *changes_ended = true,
            },
            () = interrupted() => return false,
        }
    }
}

fn report_second(session: &mut Session, second: u64, tally: &Tally, total: &mut Tally) {
    total.merge(tally);
    session.summary.seconds += 1;
    session.summary.idle_seconds += u64::from(tally.ops == 0);
    session.report.second(second, tally, session.client.topology().nodes.len());
}

fn finish(session: &mut Session, total: &Tally) {
    session.summary.total.merge(total);
    session.report.text("");
    session.report.pods(total);
}
