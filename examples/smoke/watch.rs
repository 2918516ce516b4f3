//! The load that is kept up, told second by second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::interrupt::interrupted;
use crate::stage::Stage;
use crate::tally::{Recorder, Tally};

/// A second is told a little after it has ended, so that what ended with it is told with it.
const AFTER: Duration = Duration::from_millis(20);

/// Keeps up a load for so many seconds, or until interrupted, and tells of each second and each change of the nodes.
pub(crate) async fn watch(stage: &mut Stage, seconds: u64) {
    stage.report.say(&format!("\nload of {} workers for {seconds} s", stage.options.concurrency));
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let recorder = Arc::new(Recorder::since(start));
    let running = stage.load.start(&recorder, end);

    let mut whole = Tally::default();
    let mut gone = false;
    // The workers keep no one waiting, not even when no operation ever ends: seconds pass by the clock.
    for second in 1..seconds {
        let due = start + Duration::from_secs(second) + AFTER;
        if !pass_until(stage, due, &mut gone).await {
            // Those still at work go down with the program.
            let tally = recorder.take(u64::MAX);
            whole.merge(&tally);
            stage.report.say("interrupted");
            return finish(stage, &whole);
        }
        tell(stage, second, &recorder.take(second), &mut whole);
    }
    // Operations that began in the last second may end after it.
    if !pass_until(stage, end, &mut gone).await {
        stage.report.say("interrupted");
    } else {
        stage.load.stop(running).await;
    }
    tell(stage, seconds, &recorder.take(u64::MAX), &mut whole);
    finish(stage, &whole);
}

/// Tells of changes until then; `false` if interrupted before.
async fn pass_until(stage: &mut Stage, due: Instant, gone: &mut bool) -> bool {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => return true,
            change = stage.changes.changed(), if !*gone => match change {
                Some(change) => stage.changed(&change),
                None => *gone = true,
            },
            () = interrupted() => return false,
        }
    }
}

fn tell(stage: &mut Stage, second: u64, tally: &Tally, whole: &mut Tally) {
    whole.merge(tally);
    stage.summary.seconds += 1;
    stage.summary.idle_seconds += u64::from(tally.ops == 0);
    stage.report.second(second, tally, stage.client.topology().nodes.len());
}

fn finish(stage: &mut Stage, whole: &Tally) {
    stage.summary.total.merge(whole);
    stage.report.say("");
    stage.report.pods(whole);
}
