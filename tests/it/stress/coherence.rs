//! No fetch returns a value from before a delete that was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Figures, PODS, WORKERS, disrupt, random_timeout};
use crate::support::{MINUTE, Version, fast_polling, server_version, service, service_client};

/// A source of truth with one number for each key.
#[derive(Default)]
struct Source {
    /// The current numbers.
    current: [AtomicU64; 4],
    /// The numbers that no fetch may fall behind: the deletes after them were acknowledged.
    deleted: [AtomicU64; 4],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_fetch_returns_a_value_from_before_an_acknowledged_delete() {
    let service = service(PODS).await;
    if server_version(service.pods()[0].addr).await < Version::META {
        return;
    }
    // As two processes.
    let caches = [service_client(&service, fast_polling()).await, service_client(&service, fast_polling()).await];
    let (source, stop) = (Arc::new(Source::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (cache, source, stop) = (caches[worker % 2].clone(), Arc::clone(&source), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut figures = Figures::default();
            while !stop.load(Ordering::Relaxed) {
                let n = fastrand::usize(..4);
                if worker < 2 {
                    // Each writes two of the keys, so that the numbers of a key only grow.
                    let n = n / 2 * 2 + worker;
                    let number = source.current[n].fetch_add(1, Ordering::SeqCst) + 1;
                    while let Err(error) = figures.run(cache.delete(format!("key-{n}"))).await {
                        figures.count_error(&error);
                    }
                    source.deleted[n].store(number, Ordering::SeqCst);
                    sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
                    continue;
                }
                let least = source.deleted[n].load(Ordering::SeqCst);
                let compute = async || {
                    let number = source.current[n].load(Ordering::SeqCst);
                    sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
                    Ok::<_, std::convert::Infallible>(number.to_string())
                };
                let cache = if worker % 4 < 2 { cache.clone() } else { cache.with_request_timeout(random_timeout()) };
                let fetch = cache.fetch(format!("key-{n}"), MINUTE, compute);
                if let Some(found) = figures.run_or_drop(fetch).await {
                    let number: u64 = std::str::from_utf8(&found.unwrap().value).unwrap().parse().unwrap();
                    assert!(number >= least, "key-{n}: {number} from before the delete at {least}");
                    figures.verified_values += 1;
                }
            }
            figures
        });
    }
    disrupt(&service, 2_000, false).await;
    stop.store(true, Ordering::Relaxed);
    let mut figures = Figures::default();
    while let Some(task) = tasks.join_next().await {
        figures.add(task.unwrap());
    }
    println!("coherence: {figures}");
    assert!(figures.verified_values > 100, "{figures}");
}
