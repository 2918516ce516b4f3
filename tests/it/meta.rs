//! Meta commands against a real memcached, as far as its version supports them.

use std::time::Duration;

use memring::meta::{Arithmetic, Delete, Get, InvalidFlag, Mode, Outcome, Set, TimeLeft};
use memring::{Cas, Client, Delivery, Error, ErrorKind, SetOptions, Ttl};

use crate::support::{LONG_TIMEOUT, MINUTE, Version, client_builder, memcached, memcached_at_least, server_version};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_meta_get_returns_exactly_the_requested_fields() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    assert_eq!(cache.meta_get("k", Get::new().value()).await.unwrap(), None);
    let stored = cache.meta_set("k", "value", Set::new(HOUR).flags(7).return_cas().key().opaque("mine")).await.unwrap();
    assert!(stored.is_done());
    assert_eq!((stored.key.as_deref(), stored.opaque.as_deref()), (Some(&b"k"[..]), Some(&b"mine"[..])));

    let bare = cache.meta_get("k", Get::new().no_bump()).await.unwrap().unwrap();
    assert_eq!((bare.value, bare.flags, bare.cas, bare.ttl_left, bare.opaque), (None, None, None, None, None));

    let all = Get::new().value().flags().cas().ttl_left().size().hit_before().last_access().key().opaque("mine");
    let item = cache.meta_get("k", all.clone()).await.unwrap().unwrap();
    assert_eq!(item.value.as_deref(), Some(&b"value"[..]));
    assert_eq!((item.flags, item.cas, item.size), (Some(7), stored.cas, Some(5)));
    assert!(matches!(item.ttl_left, Some(TimeLeft::Finite(left)) if left <= HOUR && left > HOUR - MINUTE));
    assert_eq!((item.hit_before, item.last_access.map(|ago| ago < MINUTE)), (Some(false), Some(true)));
    assert_eq!((item.key.as_deref(), item.opaque.as_deref()), (Some(&b"k"[..]), Some(&b"mine"[..])));
    assert!(!(item.won || item.stale || item.recaching || item.is_lease()) && item.other.is_empty());
    assert_eq!(cache.meta_get("k", all).await.unwrap().unwrap().hit_before, Some(true));

    cache.meta_set("k", "", Set::new(Ttl::NEVER)).await.unwrap();
    let item = cache.meta_get("k", Get::new().value().ttl_left().touch(MINUTE)).await.unwrap().unwrap();
    assert!(item.value.unwrap().is_empty());
    let item = cache.meta_get("k", Get::new().ttl_left().touch(Ttl::NEVER)).await.unwrap().unwrap();
    assert!(
        matches!(item.ttl_left, Some(TimeLeft::Finite(left)) if left <= MINUTE)
            || item.ttl_left == Some(TimeLeft::Unlimited)
    );
    let item = cache.meta_get("k", Get::new().ttl_left()).await.unwrap().unwrap();
    assert_eq!(item.ttl_left, Some(TimeLeft::Unlimited));
}

#[tokio::test]
async fn a_meta_set_has_five_modes_and_compares_the_cas_unique() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let set = |mode| Set::new(MINUTE).mode(mode);
    let outcome = async |value: &'static str, options| cache.meta_set("k", value, options).await.unwrap().outcome;
    assert_eq!(outcome("x", set(Mode::Replace)).await, Outcome::NotStored);
    assert_eq!(outcome("x", set(Mode::Append)).await, Outcome::NotStored);
    assert_eq!(outcome("x", set(Mode::Prepend)).await, Outcome::NotStored);
    assert_eq!(outcome("b", set(Mode::Add)).await, Outcome::Done);
    assert_eq!(outcome("x", set(Mode::Add)).await, Outcome::NotStored);
    assert_eq!(outcome("c", set(Mode::Append)).await, Outcome::Done);
    assert_eq!(outcome("a", set(Mode::Prepend)).await, Outcome::Done);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "abc");
    assert_eq!(outcome("r", set(Mode::Replace)).await, Outcome::Done);
    let stored = cache.meta_set("k", "s", set(Mode::Set).return_cas()).await.unwrap();
    let cas = stored.cas.unwrap();
    assert_eq!(outcome("t", Set::new(MINUTE).compare(cas)).await, Outcome::Done);
    assert_eq!(outcome("u", Set::new(MINUTE).compare(cas)).await, Outcome::Exists);
    assert_eq!(cache.meta_set("absent", "u", Set::new(MINUTE).compare(cas)).await.unwrap().outcome, Outcome::NotFound);
    // With `invalidate`, an older unique is accepted, and the item becomes stale.
    assert_eq!(outcome("v", Set::new(MINUTE).compare(cas).invalidate()).await, Outcome::Done);
    let item = cache.meta_get("k", Get::new().value()).await.unwrap().unwrap();
    assert_eq!((item.value.as_deref(), item.stale, item.won), (Some(&b"v"[..]), true, true));
}

#[tokio::test]
async fn a_meta_get_returns_exactly_the_bytes_of_the_meta_set() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [&b""[..], b"\r\n", b"EN\r\n", b"MN\r\nflush_all\r\n", b"VA 1\r\nx\r\n", &every_byte, &[b'x'; 100_000]]
    {
        assert!(cache.meta_set("k", value.to_vec(), Set::new(MINUTE)).await.unwrap().is_done());
        let item = cache.meta_get("k", Get::new().value()).await.unwrap().unwrap();
        assert_eq!(item.value.as_deref(), Some(value));
    }
}

#[tokio::test]
async fn a_meta_delete_deletes_the_item_or_marks_it_as_stale() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    assert_eq!(cache.meta_delete("k", Delete::new()).await.unwrap().outcome, Outcome::NotFound);
    let cas = cache.meta_set("k", "old", Set::new(HOUR).return_cas()).await.unwrap().cas.unwrap();
    let other = Cas::new(cas.get() + 1000);
    assert_eq!(cache.meta_delete("k", Delete::new().compare(other)).await.unwrap().outcome, Outcome::Exists);
    assert!(cache.meta_delete("k", Delete::new().compare(cas).mark_stale().ttl(MINUTE)).await.unwrap().is_done());

    // The first reader wins the renewal, and the others see that it is in progress.
    let read = || cache.meta_get("k", Get::new().value().cas().ttl_left());
    let first = read().await.unwrap().unwrap();
    assert_eq!((first.stale, first.won, first.recaching), (true, true, false));
    assert_eq!(first.value.as_deref(), Some(&b"old"[..]));
    assert!(matches!(first.ttl_left, Some(TimeLeft::Finite(left)) if left <= MINUTE));
    let second = read().await.unwrap().unwrap();
    assert_eq!((second.stale, second.won, second.recaching), (true, false, true));
    // A classic get returns the value of a stale item.
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "old");
    assert!(cache.meta_set("k", "new", Set::new(MINUTE).compare(first.cas.unwrap())).await.unwrap().is_done());
    let fresh = read().await.unwrap().unwrap();
    assert_eq!((fresh.stale, fresh.won, fresh.recaching), (false, false, false));
    assert!(cache.meta_delete("k", Delete::new()).await.unwrap().is_done());
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn one_reader_gets_the_lease_of_a_missing_or_expiring_item() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let read = || cache.meta_get("k", Get::new().value().cas().vivify(MINUTE));
    let winner = read().await.unwrap().unwrap();
    assert!(winner.won && winner.is_lease() && winner.value.unwrap().is_empty());
    let loser = read().await.unwrap().unwrap();
    assert!(!loser.won && loser.recaching && loser.is_lease());
    assert!(cache.meta_set("k", "v", Set::new(MINUTE).compare(winner.cas.unwrap())).await.unwrap().is_done());
    let item = read().await.unwrap().unwrap();
    assert!(!item.won && !item.recaching && !item.is_lease());

    // One reader wins the renewal of an item that expires soon.
    let read_early = || cache.meta_get("k", Get::new().value().recache_within(HOUR));
    assert!(read_early().await.unwrap().unwrap().won);
    let other = read_early().await.unwrap().unwrap();
    assert!(other.recaching && !other.won && !other.is_lease());
    assert_eq!(other.value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test]
async fn meta_arithmetic_creates_and_changes_numbers() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let count = async |options| cache.meta_arithmetic("n", options).await.unwrap();
    assert_eq!(count(Arithmetic::incr(1)).await.outcome, Outcome::NotFound);
    let created = count(Arithmetic::incr(1).create(10, HOUR).ttl_left().return_cas().key().opaque("o")).await;
    assert_eq!((created.outcome, created.value), (Outcome::Done, Some(10)));
    assert!(created.ttl_left.is_some() && created.opaque.as_deref() == Some(b"o"));
    assert_eq!(count(Arithmetic::incr(5).create(10, HOUR)).await.value, Some(15));
    assert_eq!(count(Arithmetic::decr(6)).await.value, Some(9));
    assert_eq!(count(Arithmetic::decr(10).touch(MINUTE)).await.value, Some(0));
    assert_eq!(count(Arithmetic::incr(u64::MAX)).await.value, Some(u64::MAX));
    let wrapped = count(Arithmetic::incr(2).return_cas()).await;
    assert_eq!(wrapped.value, Some(1));
    let cas = wrapped.cas.unwrap();
    assert_eq!(count(Arithmetic::incr(1).compare(cas)).await.value, Some(2));
    let late = count(Arithmetic::incr(1).compare(cas)).await;
    assert_eq!((late.outcome, late.value), (Outcome::Exists, None));

    // A value that is not a number is refused, and the connection stays usable.
    cache.set("n", "text", MINUTE).await.unwrap();
    let error = cache.meta_arithmetic("n", Arithmetic::incr(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::Answered));
    assert_eq!(cache.get("n").await.unwrap().unwrap().value, "text");
}

#[tokio::test]
async fn meta_debug_describes_an_item_and_meta_noop_succeeds() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    assert_eq!(cache.meta_debug("k").await.unwrap(), None);
    cache.set("k", "v", MINUTE).await.unwrap();
    let fields = cache.meta_debug("k").await.unwrap().unwrap();
    assert!(fields.iter().any(|(name, value)| name == "cas" && value.parse::<u64>().is_ok()), "{fields:?}");
    let outcomes = cache.meta_noop().await;
    assert!(outcomes.len() == 1 && outcomes[0].1.is_ok());
}

#[tokio::test]
async fn options_that_need_a_later_server_are_unsupported_on_older_ones() {
    let (server, cache) = memcached().await;
    let version = server_version(server.addr()).await;
    let check = |outcome: Result<bool, Error>, needed: Version| match outcome {
        Ok(worked) => assert!(worked && version >= needed, "{version:?} supports an option that needs {needed:?}"),
        Err(error) => {
            assert!(version < needed, "{version:?}: {error}");
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
        }
    };
    cache.set("k", "v", MINUTE).await.unwrap();
    check(cache.meta_get("k", Get::new()).await.map(|item| item.is_some()), Version::META);
    check(cache.meta_debug("k").await.map(|item| item.is_some()), Version::META);
    check(cache.meta_noop().await.remove(0).1.map(|()| true), Version::META);
    let options = Set::new(MINUTE).mode(Mode::Append).vivify(MINUTE);
    check(cache.meta_set("vivified", "v", options).await.map(|done| done.is_done()), Version(1, 6, 20));
    let options = Set::new(MINUTE).new_cas(Cas::new(77)).return_cas();
    let named = cache.meta_set("named", "v", options).await;
    check(named.map(|done| done.cas == Some(Cas::new(77))), Version(1, 6, 27));
    let dropped = cache.meta_delete("k", Delete::new().drop_value()).await;
    check(dropped.map(|done| done.is_done()), Version(1, 6, 27));
    if version >= Version::META {
        let cas = cache.meta_set("k", "v", Set::new(MINUTE).return_cas()).await.unwrap().cas.unwrap();
        let unchanged = cache.meta_get("k", Get::new().value().unless_cas(cas)).await;
        check(unchanged.map(|item| item.unwrap().value.is_none()), Version(1, 6, 40));
        let changed = cache.meta_get("k", Get::new().value().unless_cas(Cas::new(cas.get() + 9))).await;
        check(changed.map(|item| item.unwrap().value.is_some()), Version(1, 6, 40));
    }
    // Classic commands work on every version.
    cache.set("k", "still here", MINUTE).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "still here");
}

#[tokio::test]
async fn invalid_flags_of_the_caller_are_refused_before_anything_is_sent() {
    let (server, cache) = memcached().await;
    cache.set("witness", "here", MINUTE).await.unwrap();
    let bad = [
        (Get::new().flag('é', ""), InvalidFlag::Letter),
        (Get::new().flag(' ', ""), InvalidFlag::Letter),
        (Get::new().flag('\n', ""), InvalidFlag::Letter),
        (Get::new().flag('9', ""), InvalidFlag::Letter),
        (Get::new().flag('q', ""), InvalidFlag::Taken),
        (Get::new().flag('O', "x"), InvalidFlag::Taken),
        (Get::new().value().flag('v', ""), InvalidFlag::Taken),
        (Get::new().touch(MINUTE).flag('T', "1"), InvalidFlag::Taken),
        (Get::new().flag('L', "a b"), InvalidFlag::Token),
        (Get::new().flag('L', "a\r\nflush_all"), InvalidFlag::Token),
        (Get::new().flag('L', &"x".repeat(65)), InvalidFlag::Token),
        (Get::new().opaque(""), InvalidFlag::Token),
        (Get::new().opaque("a b"), InvalidFlag::Token),
        (Get::new().opaque("x".repeat(32)), InvalidFlag::Token),
    ];
    for (options, reason) in bad {
        let error = cache.meta_get("witness", options).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidFlag, Delivery::NotSent));
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<InvalidFlag>();
        assert_eq!(source, Some(&reason));
    }
    if server_version(server.addr()).await >= Version(1, 6, 18) {
        let routed = Get::new().value().flag('L', "path/").flag('P', "x").opaque("x".repeat(31));
        assert!(cache.meta_get("witness", routed).await.unwrap().is_some());
        // The server refuses an unknown flag, and does not run the data block as a command.
        let error = cache.meta_set("k", "flush_all", Set::new(MINUTE).flag('z', "")).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::Answered));
        // The same holds for more flags than the server reads. The client refuses more than fit a command.
        for letters in ["LPABDGHJKQRUV", "LPABDGHJKQRUVW", "LPABDGHJKQRUVWXYZ"] {
            let flags = letters.chars().filter(|flag| *flag != 'Q');
            let options = flags.fold(Set::new(MINUTE), |set, flag| set.flag(flag, ""));
            let error = cache.meta_set("k", "flush_all", options.opaque("mine")).await.unwrap_err();
            let refused = (ErrorKind::Server, Delivery::Answered);
            let not_sent = (ErrorKind::InvalidFlag, Delivery::NotSent);
            assert_eq!((error.kind(), error.delivery()), if letters.len() > 15 { not_sent } else { refused });
        }
    }
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
}

/// A server refuses a line with more flags than it reads, and then runs the data block as commands.
#[tokio::test]
async fn no_number_of_flags_makes_the_server_run_a_value_as_a_command() {
    let (server, cache) = memcached().await;
    cache.set("witness", "here", MINUTE).await.unwrap();
    let flags = "adeghijlmnoprtuvwxyzABDGHKLPQUVWXYZ";
    for count in 0..flags.len() {
        let with_flags =
            |options: Set| flags[..count].chars().fold(options, |options, letter| options.flag(letter, ""));
        let all = Set::new(MINUTE).flags(1).mode(Mode::Set).compare(Cas::new(1)).return_cas().return_size();
        for options in [with_flags(Set::new(MINUTE)), with_flags(all.invalidate().key())] {
            let outcome = cache.meta_set("k", "flush_all", options).await;
            if let Err(error) = outcome {
                let kinds = [ErrorKind::InvalidFlag, ErrorKind::Server, ErrorKind::Unsupported];
                assert!(kinds.contains(&error.kind()), "{count}: {error}");
            }
        }
    }
    if server_version(server.addr()).await >= Version(1, 6, 18) {
        let thirteen = "PLadeghijlmno".chars().fold(Set::new(MINUTE), |options, letter| options.flag(letter, ""));
        assert_eq!(cache.meta_set("k", "v", thirteen.clone()).await.unwrap_err().kind(), ErrorKind::Server);
    }
    let fifteen = "PLadeghijlmnopr".chars().fold(Set::new(MINUTE), |options, letter| options.flag(letter, ""));
    let error = cache.meta_set("k", "v", fifteen).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidFlag, Delivery::NotSent));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), InvalidFlag::TooMany.to_string());
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
}

/// Keys in base64 and batches add flags of their own.
#[tokio::test]
async fn all_options_together_fit_one_command() {
    let Some((server, _)) = memcached_at_least(Version(1, 6, 27)).await else { return };
    let cache = client_builder(server.addr()).binary_keys(true).connect().await.unwrap();
    let get = Get::new().value().flags().cas().ttl_left().size().hit_before().last_access().no_bump().key();
    let get = get.touch(HOUR).vivify(HOUR).recache_within(MINUTE).new_cas(Cas::new(5));
    let has_unless = server_version(server.addr()).await >= Version(1, 6, 40);
    let get = if has_unless { get.unless_cas(Cas::new(1)) } else { get };
    for key in ["text", "two words"] {
        assert!(cache.meta_get(key, get.clone()).await.unwrap().is_some());
        assert!(cache.meta_get_many([key], get.clone()).await.remove(0).1.unwrap().is_some());
        let set = Set::new(MINUTE).flags(1).mode(Mode::Set).compare(Cas::new(1)).invalidate().vivify(MINUTE);
        let set = set.return_cas().return_size().key().opaque("o".repeat(31)).new_cas(Cas::new(7));
        assert_eq!(cache.meta_set(key, "x", set).await.unwrap().opaque.unwrap().len(), 31);
    }
}

#[tokio::test]
async fn invalid_keys_values_and_ttls_are_refused_before_anything_is_sent() {
    let (_server, cache) = memcached().await;
    cache.set("witness", "here", MINUTE).await.unwrap();
    for bad in ["", "a b", "a\r\nflush_all\r\n", &"k".repeat(251)] {
        let outcomes = [
            cache.meta_get(bad, Get::new()).await.map(|_| ()),
            cache.meta_set(bad, "flush_all", Set::new(MINUTE)).await.map(|_| ()),
            cache.meta_delete(bad, Delete::new()).await.map(|_| ()),
            cache.meta_arithmetic(bad, Arithmetic::incr(1)).await.map(|_| ()),
            cache.meta_debug(bad).await.map(|_| ()),
        ];
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidKey, Delivery::NotSent), "{bad:?}");
        }
    }
    let error = cache.meta_set("k", vec![b'x'; (1 << 20) + 1], Set::new(MINUTE)).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::NotSent));
    for ttl in [Duration::ZERO, Duration::from_secs(1 << 40)] {
        let error = cache.meta_get("k", Get::new().touch(ttl)).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
    }
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
}

/// The server's limit includes the header of an item, so the value is within the client's limit.
#[tokio::test]
async fn a_value_that_the_server_refuses_does_not_affect_other_requests() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let just_too_large = vec![b'x'; (1 << 20) - 10];
    let (refused, ()) = tokio::join!(cache.meta_set("k", just_too_large, Set::new(MINUTE)), async {
        for n in 0..100 {
            cache.meta_get(format!("k{n}"), Get::new().value()).await.unwrap();
        }
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn meta_get_many_returns_an_outcome_for_each_key() {
    let Some((server, _)) = memcached_at_least(Version::META).await else { return };
    let (other, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string(), other.addr().to_string()]);
    let cache = builder.binary_keys(true).request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    assert!(cache.meta_get_many([] as [&str; 0], Get::new()).await.is_empty());
    let keys: Vec<String> = (0..1_000).map(|n| format!("key{}{n}", if n % 3 == 0 { " " } else { "-" })).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        cache.set(key, n.to_string(), SetOptions::from(MINUTE).flags(n as u32)).await.unwrap();
    }
    let found = cache.meta_get_many(&keys, Get::new().value().flags().key().opaque("mine")).await;
    assert_eq!(found.len(), 1_000);
    for (n, (key, outcome)) in found.into_iter().enumerate() {
        assert_eq!(key, &keys[n]);
        let item = outcome.unwrap();
        assert_eq!(item.is_some(), n % 2 == 0, "{key}");
        let Some(item) = item else { continue };
        assert_eq!((item.value.unwrap(), item.flags), (n.to_string().into(), Some(n as u32)));
        assert_eq!((item.key.as_deref(), item.opaque), (Some(key.as_bytes()), None));
    }
    // Repeated and invalid keys in one call.
    let long = "k".repeat(251);
    let mixed = ["key 0", "", "key 0", &long, "absent", "key-2", "key 0"];
    let outcomes = cache.meta_get_many(mixed, Get::new().value()).await;
    let results: Vec<_> = outcomes
        .into_iter()
        .map(|(_, outcome)| outcome.map(|item| item.map(|item| item.value.unwrap())).map_err(|error| error.kind()))
        .collect();
    let hit = |text: &'static str| Ok(Some(text.into()));
    let invalid = || Err(ErrorKind::InvalidKey);
    assert_eq!(results, [hit("0"), invalid(), hit("0"), invalid(), Ok(None), hit("2"), hit("0")]);
    // Without any requested field, the outcome is whether the item exists.
    let found = cache.meta_get_many(["key 0", "absent"], Get::new()).await;
    assert_eq!(found.iter().map(|(_, outcome)| outcome.as_ref().unwrap().is_some()).collect::<Vec<_>>(), [true, false]);
}
