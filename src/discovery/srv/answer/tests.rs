use super::*;

const OPTIONS: RecordOptions = RecordOptions { port: None, default_port: 11211, weights: WeightPolicy::Ignore };

/// Parses records: `target:port`, `target:port/priority` or `target:port/priority/weight`.
fn answer(records: &[&str]) -> SrvAnswer {
    let record = |text: &&str| {
        let mut parts = text.split('/');
        let (target, port) = parts.next().unwrap().rsplit_once(':').unwrap();
        let priority = parts.next().map_or(0, |text| text.parse().unwrap());
        let weight = parts.next().map_or(33, |text| text.parse().unwrap());
        SrvRecord { priority, weight, port: port.parse().unwrap(), target: target.to_owned() }
    };
    let names = vec!["_memcached._tcp.SVC.".into(), "_x.svc.example.".into()];
    let ttl = Duration::from_secs(5);
    SrvAnswer { names, records: records.iter().map(record).collect(), glue: Vec::new(), ttl }
}

fn with_glue(mut answer: SrvAnswer, glue: &[(&str, &str)]) -> SrvAnswer {
    answer.glue = glue.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
    answer
}

fn ids(membership: &Membership) -> Vec<String> {
    membership.endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
}

fn read(records: &[&str], options: &RecordOptions) -> (Vec<String>, Vec<Warning>) {
    let (membership, warnings) = to_membership(answer(records), options).unwrap();
    (ids(&membership), warnings)
}

/// docs/discovery.md, row 70: also for a source that passes them on, and looks hosts up with the system's resolver.
#[test]
fn targets_are_absolute_names() {
    let (membership, _) = to_membership(answer(&["mc-0.svc.:11211"]), &OPTIONS).unwrap();
    let id = membership.endpoints()[0].id();
    assert_eq!((id.lookup_name(), id.host()), ("mc-0.svc.", "mc-0.svc"));
}

/// docs/discovery.md, row 28: kube-dns answers port 0 to a query of the bare name.
#[test]
fn port_0_is_the_default_port() {
    assert_eq!(read(&["mc-0.svc.:0"], &OPTIONS), (vec!["mc-0.svc:11211".into()], vec![]));
    let other = RecordOptions { default_port: 11999, ..OPTIONS };
    assert_eq!(read(&["mc-0.svc.:0"], &other).0, ["mc-0.svc:11999"]);
}

/// docs/discovery.md, row 29.
#[test]
fn several_ports_of_a_pod_are_one_node() {
    let both = ["mc-0.svc.:9150", "mc-0.svc.:11211", "mc-1.svc.:11211", "mc-1.svc.:9150"];
    let (found, warnings) = read(&both, &OPTIONS);
    assert_eq!(found, ["mc-0.svc:11211", "mc-1.svc:11211"]);
    assert_eq!(warnings[0], Warning::SeveralPorts { host: "mc-0.svc".into(), taken: 11211 });

    let neither_usual = ["mc-0.svc.:11999", "mc-0.svc.:9150"];

    let filtered = RecordOptions { port: Some(11999), ..OPTIONS };
    assert_eq!(read(&neither_usual, &filtered), (vec!["mc-0.svc:11999".into()], vec![]));
}

/// docs/discovery.md, row 57: the lower one may be a metrics exporter.
#[test]
fn several_ports_without_the_usual_one_are_a_configuration_error() {
    let records = ["mc-0.svc.:11211", "mc-1.svc.:11999", "mc-1.svc.:9150"];
    let error = to_membership(answer(&records), &OPTIONS).unwrap_err();
    let text = "pods such as mc-1.svc have the ports 9150, 11999, and none of them is 11211: select memcached's by \
                name (`port_name`) or by number (`port`)";
    assert_eq!(error, DiscoveryError::Config(text.into()));
    assert_eq!(read(&["mc-0.svc.:9150"], &OPTIONS).0, ["mc-0.svc:9150"], "a single port needs no choice");
    let other = RecordOptions { default_port: 11999, ..OPTIONS };
    assert_eq!(read(&["mc-1.svc.:11999", "mc-1.svc.:9150"], &other).0, ["mc-1.svc:11999"]);
}

/// docs/discovery.md, row 58: by the name asked for, or one its aliases lead to, without `_port._proto`.
#[test]
fn a_service_that_is_not_headless_is_warned_about() {
    for target in ["svc", "svc.example"] {
        let (found, warnings) = read(&[&format!("{target}.:11211")], &OPTIONS);
        assert_eq!(found, [format!("{target}:11211")]);
        assert_eq!(warnings, [Warning::NotHeadless { host: target.into() }]);
    }
    assert_eq!(read(&["mc-0.svc.:11211"], &OPTIONS).1, []);
}

/// docs/discovery.md, row 29: it must not look like an empty service.
#[test]
fn a_port_that_no_pod_has_is_a_configuration_error() {
    let filtered = RecordOptions { port: Some(7), ..OPTIONS };
    let error = to_membership(answer(&["mc-0.svc.:11211"]), &filtered).unwrap_err();
    assert_eq!(error.to_string(), "the service lists pods, but none with port 7");
}

/// docs/discovery.md, row 31.
#[test]
fn endpoints_of_all_priorities_are_returned() {
    let (membership, _) = to_membership(answer(&["a.:1/10", "b.:1/20"]), &OPTIONS).unwrap();
    assert_eq!(membership.endpoints().iter().map(Endpoint::priority).collect::<Vec<_>>(), [10, 20]);
}

/// docs/discovery.md, row 32.
#[test]
fn weights_are_ignored_by_default() {
    let (membership, _) = to_membership(answer(&["a.:1/0/33", "b.:1/0/25", "c.:1/0/0"]), &OPTIONS).unwrap();
    assert!(membership.endpoints().iter().all(|endpoint| endpoint.weight() == 1));
}

/// docs/discovery.md, row 33: each at least 1, and each priority by itself.
#[test]
fn relative_weights_are_proportional() {
    let options = RecordOptions { weights: WeightPolicy::Relative, ..OPTIONS };
    for (weights, expected) in [
        (vec![33, 33, 33], vec![1, 1, 1]),
        (vec![10, 20, 30], vec![1, 2, 3]),
        (vec![0, 1, 2], vec![1, 1, 2]),
        (vec![0, 0], vec![1, 1]),
        (vec![1, 65_535], vec![1, 16]),
        (vec![30_000, 60_001], vec![8, 16]),
        (vec![16, 1], vec![16, 1]),
        (vec![17, 1], vec![16, 1]),
    ] {
        let records: Vec<_> = weights.iter().enumerate().map(|(n, weight)| format!("n{n}.:1/0/{weight}")).collect();
        let mut records: Vec<_> = records.iter().map(String::as_str).collect();
        records.push("spare.:1/5/7000");
        let (membership, _) = to_membership(answer(&records), &options).unwrap();
        let found: Vec<_> = membership.endpoints().iter().map(Endpoint::weight).collect();
        assert_eq!((&found[..expected.len()], found[expected.len()]), (&expected[..], 1), "{weights:?}");
    }
}

/// docs/discovery.md, row 34: IPv4 first. Glue of other names and duplicates are skipped.
#[test]
fn glue_goes_to_the_endpoint_of_its_name() {
    let glue = [
        ("MC-0.svc.", "fd00::1"),
        ("mc-0.svc", "10.0.0.2"),
        ("mc-0.svc.", "10.0.0.1"),
        ("mc-0.svc.", "10.0.0.2"),
        ("other.svc.", "10.9.9.9"),
    ];
    let (membership, _) = to_membership(with_glue(answer(&["mc-0.svc.:1", "mc-1.svc.:1"]), &glue), &OPTIONS).unwrap();
    let addresses: Vec<_> = membership.endpoints()[0].addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.2", "10.0.0.1", "fd00::1"]);
    assert!(membership.endpoints()[1].addresses().is_empty());
    assert_eq!(membership.ttl(), Some(Duration::from_secs(5)));
}

/// docs/discovery.md, row 35: whatever the spelling of the name.
#[test]
fn duplicate_records_are_one_node_in_any_order() {
    let options = RecordOptions { weights: WeightPolicy::Relative, ..OPTIONS };
    let mut records = ["MC-0.svc.:11211/1/8", "mc-0.svc:11211/0/2", "mc-0.SVC.:0/0/4", "mc-1.svc.:11211/0/2"];
    let (forth, _) = to_membership(answer(&records), &options).unwrap();
    records.reverse();
    let (back, _) = to_membership(answer(&records), &options).unwrap();
    assert_eq!(forth, back);
    assert_eq!(ids(&forth), ["mc-0.svc:11211", "mc-1.svc:11211"]);
    assert_eq!((forth.endpoints()[0].priority(), forth.endpoints()[0].weight()), (0, 2));
}

/// docs/discovery.md, rows 36 and 56: the other records are kept.
#[test]
fn invalid_targets_are_skipped() {
    let long = format!("{}.:1", "a".repeat(64));
    let longer = format!("{}:1", "a23456789.".repeat(26));
    let (found, warnings) = read(&[".:1", &long, &longer, "a b.:1", "a\\032b.:1", "mc-0.svc.:1"], &OPTIONS);
    assert_eq!(found, ["mc-0.svc:1"]);
    assert_eq!(warnings.len(), 4, "the target \".\" is valid: {warnings:?}");
    for (record, reason) in [(".:1", "the only target is `.`"), ("a b.:1", "no target is a host name")] {
        let error = to_membership(answer(&[record]), &OPTIONS).unwrap_err();
        assert!(error.is_empty() && error.to_string().contains(reason), "{error}");
    }
}

/// docs/discovery.md, row 38.
#[test]
fn pods_named_after_their_addresses_work_with_a_warning() {
    for name in ["10-1-2-3.mc.svc", "fd00--1.mc.svc", "2001-db8-0-0-0-0-0-1.mc.svc", "fd00--0.mc.svc"] {
        let (found, warnings) = read(&[&format!("{name}.:1")], &OPTIONS);
        assert_eq!(found, [format!("{name}:1")]);
        assert_eq!(warnings, [Warning::UnstableName { host: name.into() }]);
    }
    for name in ["mc-0.mc.svc", "10-1-2.mc.svc", "10-1-2-3-4.mc.svc", "a-b-c-d.mc.svc"] {
        assert_eq!(read(&[&format!("{name}.:1")], &OPTIONS).1, []);
    }
}
