//! Callers on other runtimes than their client's, and outside any runtime.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use memring::testing::Memcached;
use memring::{Client, Delivery, Error, ErrorKind, FetchError, FetchOptions, Item, Origin, StatsKind};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::scripted::{never_reply, scripted_server};
use crate::support::{DEFAULT_TIMEOUT, MINUTE, client_builder, memcached, within};

/// How much later than its deadline a call outside a runtime may end on a loaded machine. Much shorter than a hang.
const SLACK: Duration = Duration::from_secs(5);

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime that drives itself.
fn worker_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Runs a future on this thread without a runtime.
fn block_on_thread<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(SLACK);
        assert!(start.elapsed() < 2 * SLACK, "the future hangs");
    }
}

/// A client of a real server, connected on a runtime that nothing drives any more.
fn client_on_a_runtime_that_is_not_driven() -> (Runtime, Memcached, Client) {
    let runtime = current_thread();
    let (server, cache) = runtime.block_on(async {
        let server = Memcached::start().await.unwrap();
        let builder = client_builder(server.addr()).request_timeout(DEFAULT_TIMEOUT).queue_limits(6, 1 << 20);
        let cache = builder.connect().await.unwrap();
        cache.set("key", "value", MINUTE).await.unwrap();
        (server, cache)
    });
    (runtime, server, cache)
}

#[test]
fn a_caller_on_another_runtime_has_its_deadline_kept_while_the_clients_runtime_is_not_driven() {
    let (runtime, _server, cache) = client_on_a_runtime_that_is_not_driven();
    current_thread().block_on(async {
        let all = async {
            tokio::join!(
                cache.get("key"),
                cache.set("key", "other", MINUTE),
                cache.meta_get("key", memring::meta::Get::new().value()),
                cache.update("key", MINUTE, |_| Some("other")),
                cache.get_many(["key", "other"]),
                cache.delete_many(["key"]),
            )
        };
        let (got, set, meta, updated, many, deleted) = within(DEFAULT_TIMEOUT, all).await;
        let errors =
            [got.unwrap_err(), set.unwrap_err(), meta.unwrap_err(), updated.unwrap_err(), many.errors[0].error.clone()];
        for error in errors.iter().chain([&deleted.errors[0].error]) {
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Timeout, Delivery::NotSent), "{error:?}");
        }
        // More than the queue takes.
        let calls = join_all((0..20).map(|_| cache.get("key")));
        for outcome in within(DEFAULT_TIMEOUT, calls).await {
            let kind = outcome.unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Overloaded), "{kind:?}");
        }
        let fetch = cache.fetch("key", MINUTE, || async { Ok::<_, String>("computed") });
        assert_eq!(within(3 * DEFAULT_TIMEOUT, fetch).await.unwrap().value, "computed");
    });
    // Nothing that has failed as not sent is sent later.
    let found = runtime.block_on(async { cache.with_request_timeout(MINUTE).get("key").await });
    assert_eq!(found.unwrap().unwrap().value, "value");
}

#[test]
fn a_thread_of_several_runtimes_keeps_the_deadlines_of_the_tasks_of_each() {
    let (runtime, _server, cache) = client_on_a_runtime_that_is_not_driven();
    let get = || {
        let cache = cache.clone();
        async move { tokio::spawn(async move { within(DEFAULT_TIMEOUT, cache.get("key")).await }).await.unwrap() }
    };
    // The thread uses one call for all of them.
    let assert_found = |got: Result<Option<Item>, Error>| assert_eq!(got.unwrap().unwrap().value, "value");
    let assert_timeout = |got: Result<Option<Item>, Error>| assert_eq!(got.unwrap_err().kind(), ErrorKind::Timeout);
    assert_found(runtime.block_on(get()));
    assert_timeout(current_thread().block_on(get()));
    // And without a task.
    assert_found(runtime.block_on(get()));
    assert_found(runtime.block_on(cache.get("key")));
    assert_timeout(current_thread().block_on(within(DEFAULT_TIMEOUT, cache.get("key"))));
    assert_found(runtime.block_on(get()));
    assert_found(runtime.block_on(cache.get("key")));
    assert_timeout(block_on_thread(cache.get("key")));
}

#[test]
fn a_caller_on_another_runtime_has_its_deadline_kept_while_the_clients_runtime_is_blocked() {
    let caller = worker_thread();
    let (requested, is_requested) = oneshot::channel();
    let (block, is_blocking) = oneshot::channel::<()>();
    let addr = caller.block_on(async {
        let requested = std::sync::Mutex::new(Some(requested));
        scripted_server(move |mut socket| {
            let requested = requested.lock().unwrap().take();
            async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = requested.map(|requested| requested.send(()));
                never_reply(socket).await;
            }
        })
        .await
    });
    let (connected, is_connected) = oneshot::channel();
    let blocked = thread::spawn(move || {
        current_thread().block_on(async {
            let builder = Client::builder().nodes([addr.to_string()]).request_timeout(SLACK / 5);
            assert!(connected.send(builder.connect().await.unwrap()).is_ok());
            is_blocking.await.unwrap();
            thread::sleep(SLACK);
        });
    });
    caller.block_on(async {
        let cache = is_connected.await.unwrap();
        let (got, ()) = tokio::join!(within(SLACK / 5, cache.get("key")), async {
            is_requested.await.unwrap();
            block.send(()).unwrap();
        });
        let error = got.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Timeout, Delivery::Unknown), "{error:?}");
    });
    blocked.join().unwrap();
}

#[test]
fn commands_work_outside_a_runtime_and_keep_their_deadlines() {
    let runtime = worker_thread();
    let (_server, cache) = runtime.block_on(memcached());
    block_on_thread(async {
        cache.set("key", "1", MINUTE).await.unwrap();
        assert_eq!(cache.get("key").await.unwrap().unwrap().value, "1");
        assert_eq!(cache.get_many(["key", "absent"]).await.hits.len(), 1);
        assert_eq!(cache.update("key", MINUTE, |_| Some("2")).await.unwrap().unwrap(), "2");
        let fetched = cache.fetch("new", MINUTE, || async { Ok::<_, String>("3") }).await;
        assert_eq!(fetched.unwrap().value, "3");
        for (_, stats) in cache.stats(StatsKind::General).await {
            assert_eq!(stats.unwrap_err().kind(), ErrorKind::Config, "it needs a runtime");
        }
        let unconnected = Client::builder().nodes(["127.0.0.1:1"]).connect().await;
        assert_eq!(unconnected.unwrap_err().kind(), ErrorKind::Config);
    });
    let silent = runtime.block_on(async {
        let silent = scripted_server(never_reply).await;
        Client::builder().nodes([silent.to_string()]).queue_limits(1, 1 << 20).connect().await.unwrap()
    });
    let calls = join_all((0..5).map(|_| silent.get("key")));
    for outcome in block_on_thread(calls) {
        // The circuit breaker opens when the first of them has timed out.
        let kind = outcome.unwrap_err().kind();
        let is_expected = matches!(kind, ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Unavailable);
        assert!(is_expected, "{kind:?}");
    }
    block_on_thread(silent.shutdown());

    let (_runtime, _server, cache) = client_on_a_runtime_that_is_not_driven();
    let error = block_on_thread(cache.get("key")).unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Timeout, Delivery::NotSent), "{error:?}");
    block_on_thread(cache.shutdown());
}

#[test]
fn a_fetch_outside_a_runtime_waits_for_the_computation_up_to_its_limit() {
    let runtime = worker_thread();
    let (_server, cache) = runtime.block_on(memcached());
    let (compute, is_computed) = oneshot::channel();
    let computing = thread::spawn(|| {
        thread::sleep(Duration::from_millis(100));
        compute.send("value").unwrap();
    });
    block_on_thread(async {
        let fetched = cache.fetch("key", MINUTE, || is_computed).await.unwrap();
        assert_eq!((&fetched.value[..], fetched.origin), (&b"value"[..], Origin::Computed));
        let options = FetchOptions::from(MINUTE).compute_timeout(Duration::from_millis(100));
        let error = cache.fetch("other", options, pending::<Result<&str, String>>).await.unwrap_err();
        assert!(matches!(error, FetchError::ComputeTimeout), "{error}");
    });
    computing.join().unwrap();
}

/// A fetch needs a runtime with time enabled.
#[test]
fn a_command_with_one_key_needs_no_timers_of_the_callers_runtime() {
    let (_runtime, _server, cache) = client_on_a_runtime_that_is_not_driven();
    let start = Instant::now();
    // More than the queue takes.
    let calls = join_all((0..20).map(|_| cache.get("key")));
    for outcome in Builder::new_current_thread().build().unwrap().block_on(calls) {
        let kind = outcome.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Overloaded), "{kind:?}");
    }
    assert!(start.elapsed() < SLACK);
}

#[test]
fn a_client_whose_runtime_is_gone_is_closed() {
    let (runtime, _server, cache) = client_on_a_runtime_that_is_not_driven();
    drop(runtime);
    let assert_closed = async || {
        let errors =
            [cache.get("key").await.unwrap_err(), cache.get_many(["key", "other"]).await.errors[0].error.clone()];
        for error in errors {
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Closed, Delivery::NotSent), "{error:?}");
            assert!(error.to_string().contains("runtime"), "{error}");
        }
    };
    current_thread().block_on(assert_closed());
    block_on_thread(assert_closed());
    block_on_thread(cache.shutdown());
}
