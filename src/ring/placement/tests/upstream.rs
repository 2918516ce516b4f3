//! Expected values from the tests of other projects.
//!
//! Many of those tests use servers, keys or sizes that no client has, so often only one step of a placement is tested.

use crate::ring::hash::{Joined, crc32, md5_number};
use crate::ring::placement::mcrouter::{ch3, weighted_ch3};
use crate::ring::placement::*;
use crate::ring::{Ring, RingNode};

fn ring(name: &str, labels: &[&str]) -> Ring {
    Ring::with_placement(&name.parse().unwrap(), labels.iter().copied()).unwrap()
}

fn owners<'a>(ring: &'a Ring, keys: &[&str]) -> Vec<&'a str> {
    keys.iter().map(|key| ring.node_for(key).unwrap().label()).collect()
}

/// Counts the keys of each server.
fn counts(servers: usize, owners: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut counts = vec![0; servers];
    owners.for_each(|owner| counts[owner] += 1);
    counts
}

fn hosts(ports: std::ops::RangeInclusive<u16>, weights: &[u32]) -> Vec<Server> {
    let weight = |index: usize| weights.get(index).copied().unwrap_or(1);
    let server = |(index, port)| Server { host: "127.0.0.1".into(), port, weight: weight(index), name: None, ip: None };
    ports.enumerate().map(server).collect()
}

/// Two keys of all 256 byte values: from 0x80 up and around to 0x7f, and reversed.
fn all_bytes() -> [Vec<u8>; 2] {
    let forwards: Vec<u8> = (0..=255_u8).map(|byte| byte.wrapping_sub(128)).collect();
    let backwards = forwards.iter().rev().copied().collect();
    [forwards, backwards]
}

/// Values from spotify/folsom, `NodeLocatorTest`.
#[test]
fn folsom_matches_its_own_tests() {
    let nodes = ["127.0.0.1:11211", "127.0.0.1:11212", "127.0.0.1:11213", "127.0.0.1:11214", "127.0.0.1:11215"];
    let expected = |clients: &[usize]| clients.iter().map(|client| nodes[client - 1]).collect::<Vec<_>>();
    let keys = ["key1", "key2", "key3", "key4", "key5", "key6", "key7", "key8", "key9", "key10"];
    let three = ring("folsom", &nodes[..3]);
    assert_eq!(owners(&three, &keys[..6]), expected(&[1, 1, 2, 3, 2, 1]));
    // After the last point, before the first point, and at the last point.
    assert_eq!(owners(&three, &["key321", "key477", "key1561"]), expected(&[2, 3, 1]));
    let five = ring("folsom", &nodes);
    assert_eq!(owners(&five, &keys), expected(&[1, 5, 2, 4, 2, 1, 5, 1, 1, 4]));
}

/// Values from facebook/mcrouter, `Ch3HashTest`.
#[test]
fn mcrouter_ch3_matches_its_own_tests() {
    let ch3 = |key: &[u8], servers| ch3(Joined::from(key), servers);
    let most = 1 << 23;
    for (key, servers, owner) in [
        (&b"sample"[..], 100, 97),
        (b"sample", 1, 0),
        (b"", 100, 72),
        (b"", 1, 0),
        (b"", most, 6_173_600),
        (b"sample", most, 5_167_780),
    ] {
        assert_eq!(ch3(key, servers), owner, "{key:?} of {servers}");
    }
    let [forwards, backwards] = all_bytes();
    assert_eq!((ch3(&forwards, 99_999), ch3(&backwards, 99_999)), (31_015, 67_101));

    let count = |servers: u32, keys: u32| {
        counts(servers as usize, (0..keys).map(|key| ch3(key.to_string().as_bytes(), servers) as usize))
    };
    assert_eq!(count(3, 1_000), [307, 342, 351]);
    assert_eq!(count(10, 10_000), [995, 955, 1_046, 968, 1_032, 972, 1_016, 1_038, 1_010, 968]);
}

/// Values from facebook/mcrouter, `WeightedCh3HashFuncTest`.
#[test]
fn mcrouter_weighted_ch3_matches_its_own_tests() {
    const ONE: u64 = u32::MAX as u64;
    let equal = |servers| vec![ONE; servers];
    for (key, servers, owner) in [(&b"sample"[..], 100, 97), (b"sample", 1, 0), (b"", 100, 72), (b"", 1, 0)] {
        assert_eq!(weighted_ch3(key, &equal(servers)), owner, "{key:?} of {servers}");
    }
    let [forwards, backwards] = all_bytes();
    let many = equal(99_999);
    assert_eq!((weighted_ch3(&forwards, &many), weighted_ch3(&backwards, &many)), (31_015, 67_101));
    // No server accepts the key: the server of the last try owns it.
    assert_eq!((weighted_ch3(b"sample", &[0; 100]), weighted_ch3(b"", &[0; 100])), (59, 45));

    let count = |one: u32, weights: &[u32], keys: u32| {
        let nodes = (0..).zip(weights).map(|(node, &weight)| RingNode::new(format!("n{node}")).with_weight(weight));
        let ring = Ring::with_placement(&Placement::mcrouter_weighted_ch3(one), nodes).unwrap();
        counts(weights.len(), (0..keys).map(|key| ring.index_for(key.to_string().as_bytes()).unwrap()))
    };
    assert_eq!(count(10, &[10, 10, 7], 1_000), [341, 371, 288]);
    assert_eq!(
        count(1_000, &[429, 541, 117, 998, 283, 65, 109, 42, 676, 943], 10_000),
        [1_016, 1_252, 288, 2_354, 661, 195, 247, 122, 1_668, 2_197]
    );
}

/// Values from facebook/mcrouter, `Crc32HashTest`.
#[test]
fn mcrouter_crc32_matches_its_own_tests() {
    let labels: Vec<String> = (0..100).map(|node| format!("n{node}")).collect();
    let ring = Ring::with_placement(&Placement::mcrouter_crc32(), labels.iter().map(String::as_str)).unwrap();
    assert_eq!((ring.index_for(b"sample"), ring.index_for(b"")), (Some(7), Some(0)));
    let [forwards, backwards] = all_bytes();
    let owner = |key: &[u8], servers| (crc32(key) & 0x7fff_ffff) % servers;
    assert_eq!((owner(&forwards, 99_999), owner(&backwards, 99_999)), (11_697, 97_630));
    assert_eq!(owner(b"sample", (1 << 30) - 1), 822_834_884);
}

/// Values from facebook/mcrouter, `RendezvousHashTest`.
#[test]
fn mcrouter_rendezvous_matches_its_own_tests() {
    let ring = |servers: usize| {
        let named = |node| RingNode::new(format!("n{node}")).with_name(format!("xxx.{node}.yy"));
        Ring::with_placement(&Placement::mcrouter_rendezvous(), (0..servers).map(named)).unwrap()
    };
    let [all_bytes, _] = all_bytes();
    let keys = [&b"sample"[..], b"", b"mykey", &all_bytes];
    let owners = |ring: &Ring| keys.map(|key| ring.index_for(key).unwrap());
    assert_eq!(owners(&ring(3)), [1, 1, 1, 1]);
    assert_eq!(owners(&ring(343)), [45, 291, 132, 183]);
    let count = |servers: usize, keys: u32| {
        let ring = ring(servers);
        counts(servers, (0..keys).map(|key| ring.index_for(format!("mykey:{key}").as_bytes()).unwrap()))
    };
    assert_eq!(count(3, 1_000), [337, 353, 310]);
    assert_eq!(count(10, 10_000), [947, 1_026, 1_028, 981, 1_016, 970, 1_013, 939, 1_023, 1_057]);
}

/// Values from ultrabug/uhashring, `test_faster_ring_hashi`, and RevenueCat/meta-memcache-py, `cache_pools_test`.
#[test]
fn uhashring_matches_its_own_tests() {
    assert_eq!(md5_number(b"test"), 12_707_736_894_140_473_154_801_792_860_916_528_374);
    let addresses = ring("uhashring", &["1.1.1.1:11211", "2.2.2.2:11211", "3.3.3.3:11211"]);
    assert_eq!(owners(&addresses, &["foo", "bar"]), ["2.2.2.2:11211", "1.1.1.1:11211"]);
    let names = ring("uhashring", &["ok1:11211", "ko2:11211", "ok3:11211"]);
    assert_eq!(owners(&names, &["foo", "bar"]), ["ko2:11211", "ok1:11211"]);
}

/// Returns the sorted points of Envoy's ring with their servers.
fn envoy_points(servers: &[Server], hash: EnvoyHash, sizes: (u32, u32)) -> Vec<(u64, u16)> {
    let order: Vec<u16> = (0..).take(servers.len()).collect();
    let mut points = envoy::ring_points(&order, servers, hash, sizes);
    points.sort();
    points
}

/// Values from envoyproxy/envoy, `ring_hash_lb_test`.
#[test]
fn envoy_ring_points_match_its_own_tests() {
    let most = envoy::MAXIMUM_RING_SIZE;
    let six = hosts(90..=95, &[]);
    assert_eq!(
        envoy_points(&six, EnvoyHash::XxHash, (12, most)),
        [
            (833_437_586_790_550_860, 4),
            (928_266_305_478_181_108, 2),
            (1_033_482_794_131_418_490, 0),
            (3_551_244_743_356_806_947, 5),
            (3_851_675_632_748_031_481, 3),
            (5_583_722_120_771_150_861, 1),
            (6_311_230_543_546_372_928, 1),
            (7_700_377_290_971_790_572, 3),
            (13_144_177_310_400_110_813, 5),
            (13_444_792_449_719_432_967, 2),
            (15_516_499_411_664_133_160, 4),
            (16_117_243_373_044_804_889, 0),
        ]
    );
    let named: Vec<_> = six.into_iter().map(|host| Server { name: Some(host.port.to_string()), ..host }).collect();
    assert_eq!(
        envoy_points(&named, EnvoyHash::XxHash, (12, most)),
        [
            (1_975_508_444_536_362_413, 5),
            (2_376_063_919_839_173_711, 5),
            (2_386_806_903_309_390_596, 3),
            (6_749_904_478_991_551_885, 4),
            (6_803_900_775_736_438_537, 3),
            (7_225_015_537_174_310_577, 2),
            (8_787_465_352_164_086_522, 0),
            (11_282_020_843_382_717_940, 2),
            (13_723_418_369_486_627_818, 1),
            (13_776_502_110_861_797_421, 0),
            (14_338_313_586_354_474_791, 1),
            (15_364_271_037_087_512_980, 4),
        ]
    );
    assert_eq!(
        envoy_points(&hosts(80..=85, &[]), EnvoyHash::Murmur2, (12, most)),
        [
            (1_358_027_074_129_602_068, 5),
            (4_361_834_613_929_391_114, 3),
            (7_224_494_972_555_149_682, 4),
            (7_701_421_856_454_313_576, 1),
            (8_649_315_368_077_433_379, 2),
            (8_739_448_859_063_030_639, 4),
            (9_887_544_217_113_020_895, 1),
            (10_150_910_876_324_007_731, 2),
            (15_168_472_011_420_622_455, 3),
            (15_427_156_902_705_414_897, 0),
            (16_375_050_414_328_759_093, 5),
            (17_613_279_263_364_193_813, 0),
        ]
    );
    // Three points cannot be divided between two hosts, so there are four.
    assert_eq!(
        envoy_points(&hosts(80..=81, &[]), EnvoyHash::XxHash, (3, most)),
        [
            (5_454_692_015_285_649_509, 0),
            (7_859_399_908_942_313_493, 1),
            (13_838_424_394_637_650_569, 0),
            (16_064_866_803_292_627_174, 1),
        ]
    );
    let weighted = hosts(90..=92, &[1, 2, 3]);
    assert_eq!(
        envoy_points(&weighted, EnvoyHash::XxHash, (6, 6)),
        [
            (928_266_305_478_181_108, 2),
            (4_443_673_547_860_492_590, 2),
            (5_583_722_120_771_150_861, 1),
            (6_311_230_543_546_372_928, 1),
            (13_444_792_449_719_432_967, 2),
            (16_117_243_373_044_804_889, 0),
        ]
    );
    // 511.5 points each.
    let uneven = envoy_points(&hosts(90..=91, &[]), EnvoyHash::XxHash, (1_023, 1_023));
    assert_eq!(counts(2, uneven.iter().map(|&(_, host)| host.into())), [512, 511]);
}

/// Values from the same test, for hashes all around the ring.
#[test]
fn envoy_ring_shares_match_its_own_tests() {
    let count = |servers: &[Server], sizes: (u32, u32), steps: u64| {
        let points = envoy_points(servers, EnvoyHash::XxHash, sizes);
        let owner = |hash| points.iter().find(|(point, _)| *point >= hash).unwrap_or(&points[0]).1;
        counts(servers.len(), (0..steps).map(|step| owner(step * (u64::MAX / steps)).into()))
    };
    let weighted = hosts(90..=92, &[1, 2, 3]);
    assert_eq!(count(&weighted, (6_144, envoy::MAXIMUM_RING_SIZE), 6_000), [987, 1_932, 3_081]);
    assert_eq!(count(&hosts(90..=91, &[]), (1_023, 1_023), 1_023), [526, 497]);
}

/// A point owns a key at its position, and the first point owns the keys after the last point.
#[test]
fn the_table_of_envoys_ring_finds_owners_and_shares() {
    let hosts = hosts(90..=95, &[]);
    let placement = Placement::envoy_ring(EnvoyHash::XxHash).with_minimum_ring_size(12);
    let table = PlacementTable::new(&placement, &hosts);
    let PlacementTable::Wide { points, .. } = &table else { panic!("not a wide table") };
    let wide: Vec<_> = envoy_points(&hosts, EnvoyHash::XxHash, (12, envoy::MAXIMUM_RING_SIZE));
    assert_eq!(*points, wide.iter().map(|&(point, host)| (u128::from(point) << 64, host)).collect::<Vec<_>>());
    // A key that is the text of a point lies at the point.
    for (name, host) in [("127.0.0.1:90_1", 0), ("127.0.0.1:94_0", 4), ("127.0.0.1:93_1", 3)] {
        assert_eq!(table.owner(name.as_bytes()), Some(host), "{name}");
    }
    let shares = table.shares(6);
    let arc = |from: u64, to: u64| to.wrapping_sub(from) as f64 / 2_f64.powi(64);
    let first = arc(16_117_243_373_044_804_889, 833_437_586_790_550_860);
    let second = arc(13_444_792_449_719_432_967, 15_516_499_411_664_133_160);
    assert!((shares[4] - first - second).abs() < 1e-12 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let default_size = PlacementTable::new(&Placement::envoy_ring(EnvoyHash::XxHash), &hosts);
    let PlacementTable::Wide { points, .. } = default_size else { panic!("not a wide table") };
    assert_eq!(points.len(), 6 * 171);
}

/// Values from envoyproxy/envoy, `maglev_lb_test`.
#[test]
fn envoy_maglev_matches_its_own_tests() {
    let six = hosts(90..=95, &[]);
    assert_eq!(envoy::maglev_slots(&six, 7), [2, 4, 0, 1, 5, 0, 3]);
    let shuffled: Vec<_> = [3_usize, 5, 0, 1, 4, 2].map(|index| six[index].clone()).into();
    assert_eq!(envoy::maglev_slots(&shuffled, 7), [5, 4, 2, 3, 1, 2, 0]);
    let named: Vec<_> = six.into_iter().map(|host| Server { name: Some(host.port.to_string()), ..host }).collect();
    assert_eq!(envoy::maglev_slots(&named, 7), [2, 5, 0, 3, 4, 1, 0]);
    assert_eq!(envoy::maglev_slots(&hosts(90..=91, &[1, 2]), 17), [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]);
    assert_eq!(envoy::maglev_slots(&hosts(90..=91, &[]), 17), [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
    assert_eq!(envoy::maglev_slots(&hosts(90..=91, &[8, 2]), 17), [1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    let table = PlacementTable::new(&Placement::envoy_maglev(), &hosts(90..=95, &[]));
    let PlacementTable::Slots(slots) = table else { panic!("not a table of slots") };
    assert_eq!(slots.owners.len(), 65_537);
}

#[test]
fn shares_and_moves_match_those_of_many_keys() {
    const KEYS: u32 = 6_000;
    let nodes =
        |count: u32| (0..count).map(|n| RingNode::new(format!("cache-{n}:11211")).with_weight(20 * (n % 3 + 1)));
    for name in [
        "libmemcached:modula",
        "libmemcached:modula:crc",
        "spymemcached:array_mod",
        "gomemcache",
        "twemproxy:modula:md5",
        "pecl",
        "pecl:consistent",
        "uhashring",
        "mcrouter:ch3",
        "mcrouter:ch3:weighted",
        "mcrouter:ch3:weighted:1000",
        "mcrouter:crc32",
        "mcrouter:rendezvous",
        "envoy",
        "envoy:murmur2",
        "envoy:maglev",
    ] {
        let placement: Placement = name.parse().unwrap();
        let [old, new] = [7, 8].map(|count| Ring::with_placement(&placement, nodes(count)).unwrap());
        let keys = || (0..KEYS).map(|key| format!("key:{}", key.wrapping_mul(2_654_435_761)));
        let owned = counts(7, keys().map(|key| old.index_for(key.as_bytes()).unwrap()));
        for (share, owned) in old.shares().into_iter().zip(owned) {
            let observed = f64::from(owned) / f64::from(KEYS);
            assert!((share - observed).abs() < 0.025, "{name}: share {share}, observed {observed}");
        }
        assert!((old.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        // For the other placements a diff is sampled, which other tests cover.
        if !["modula", "array_mod", "gomemcache", "pecl", "crc32", "maglev"].iter().any(|word| name.contains(word)) {
            continue;
        }
        let diff = Ring::diff(&old, &new);
        let moved = keys().filter(|key| old.index_for(key.as_bytes()) != new.index_for(key.as_bytes())).count();
        let observed = moved as f64 / f64::from(KEYS);
        let is_close = (diff.moved() - observed).abs() < 0.025;
        assert!(diff.is_exact && is_close, "{name}: {} moves, observed {observed}", diff.moved());
    }
}

#[test]
fn the_remainders_of_a_modulo_are_counted_exactly() {
    let moved = |name: &str, from: usize, to: usize| {
        let labels: Vec<String> = (0..from.max(to)).map(|node| format!("n{node}")).collect();
        let ring = |count: usize| {
            Ring::with_placement(&name.parse().unwrap(), labels[..count].iter().map(String::as_str)).unwrap()
        };
        let diff = Ring::diff(&ring(from), &ring(to));
        (diff.moved(), diff.is_exact, ring(from).shares())
    };
    // Two of six remainders stay. 2^32 is a multiple of six plus four, and two of these four stay.
    let values = 2_f64.powi(32);
    let stay = f64::from((u32::MAX - 3) / 6 * 2 + 2) / values;
    let (share, exact, shares) = moved("gomemcache", 3, 2);
    assert_eq!((share, exact), (1.0 - stay, true));
    assert_eq!(shares, [1_431_655_766.0 / values, 1_431_655_765.0 / values, 1_431_655_765.0 / values]);
    // All values of pecl-memcache's 15 bits.
    let values = || (0..1_u32 << 15).map(|value| value.max(1));
    let (share, exact, shares) = moved("pecl", 5, 7);
    assert_eq!((share, exact), (values().filter(|value| value % 5 != value % 7).count() as f64 / 32_768.0, true));
    assert_eq!(
        shares,
        [0, 1, 2, 3, 4].map(|node| values().filter(|value| value % 5 == node).count() as f64 / 32_768.0)
    );
    // More remainders than the hash has values.
    let (share, exact, _) = moved("libmemcached:modula:crc", 211, 223);
    assert_eq!(
        (share, exact),
        ((0..1_u32 << 15).filter(|value| value % 211 != value % 223).count() as f64 / 32_768.0, true)
    );
    // Too many remainders to count.
    assert!(!moved("gomemcache", 2_053, 2_063).1);
    // Different hashes, then the same hash.
    let ring = |name: &str| Ring::with_placement(&name.parse().unwrap(), ["a", "b", "c"]).unwrap();
    assert!(!Ring::diff(&ring("gomemcache"), &ring("mcrouter:crc32")).is_exact);
    assert!(Ring::diff(&ring("gomemcache"), &ring("pecl:consistent")).is_exact);
}
