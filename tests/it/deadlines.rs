//! Deadlines of queued calls, while the connections of their node come and go.

use std::time::Duration;

use memring::{Client, Delivery, ErrorKind};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::scripted::{NodeList, always_miss, never_reply, scripted_server};
use crate::support::{LONG_TIMEOUT, eventually, fast_polling, key_owned_by, node_id, within};

/// Of the queued call. Long enough for its node to leave meanwhile, and much shorter than the silence timeout.
const DEADLINE: Duration = Duration::from_secs(2);

/// A node with two connections is left with one, which has a call in flight. Then it leaves the topology.
async fn assert_deadline_is_kept_while_retiring_after_the_end_of(lost_connection: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let leaving = listener.local_addr().unwrap();
    let (requested, mut is_requested) = watch::channel(false);
    tokio::spawn(async move {
        let mut sockets = [listener.accept().await.unwrap().0, listener.accept().await.unwrap().0];
        // No other connection can be opened.
        drop(listener);
        sockets.swap(0, lost_connection);
        let [lost, mut kept] = sockets;
        drop(lost);
        assert!(kept.read(&mut [0; 4096]).await.unwrap() > 0);
        requested.send_replace(true);
        never_reply(kept).await;
    });
    let nodes = NodeList::new([leaving, scripted_server(always_miss).await]);
    let options = fast_polling().removal_grace(Duration::ZERO);
    let builder = Client::builder().discovery(nodes.clone()).discovery_options(options).connections_per_node(2);
    let cache = builder.request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    let key = key_owned_by(&cache, &node_id(leaving));

    let (in_flight_cache, in_flight_key) = (cache.clone(), key.clone());
    let in_flight = tokio::spawn(async move {
        // Until it is sent on the connection that is left.
        while in_flight_cache.get(&in_flight_key).await.is_err_and(|error| error.kind() == ErrorKind::Connection) {}
    });
    is_requested.wait_for(|is_requested| *is_requested).await.unwrap();

    let (queued_cache, left) = (cache.with_request_timeout(DEADLINE), cache.clone());
    let (queued, ()) = tokio::join!(within(DEADLINE, queued_cache.get(&key)), async {
        nodes.remove(leaving);
        eventually("the node has left", async || left.topology().nodes.len() == 1).await;
    });
    let error = queued.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Timeout, Delivery::NotSent), "{error:?}");
    in_flight.abort();
}

#[tokio::test]
async fn the_deadline_of_a_queued_call_is_kept_while_its_node_retires_with_some_connections_lost() {
    tokio::join!(
        assert_deadline_is_kept_while_retiring_after_the_end_of(0),
        assert_deadline_is_kept_while_retiring_after_the_end_of(1),
    );
}
