use super::*;

const RULES: Rules = Rules { port: None, default_port: 11211, weights: WeightPolicy::Ignore };

/// Records written `target:port`, `target:port/priority` or `target:port/priority/weight`.
fn answer(records: &[&str]) -> SrvAnswer {
    let record = |text: &&str| {
        let mut parts = text.split('/');
        let (target, port) = parts.next().unwrap().rsplit_once(':').unwrap();
        let priority = parts.next().map_or(0, |text| text.parse().unwrap());
        let weight = parts.next().map_or(33, |text| text.parse().unwrap());
        SrvRecord { priority, weight, port: port.parse().unwrap(), target: target.to_owned() }
    };
    SrvAnswer { records: records.iter().map(record).collect(), glue: Vec::new(), ttl: Duration::from_secs(5) }
}

fn with_glue(mut answer: SrvAnswer, glue: &[(&str, &str)]) -> SrvAnswer {
    answer.glue = glue.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
    answer
}

fn ids(membership: &Membership) -> Vec<String> {
    membership.endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
}

fn read(records: &[&str], rules: &Rules) -> (Vec<String>, Vec<Warning>) {
    let (membership, warnings) = normalize(answer(records), rules).unwrap();
    (ids(&membership), warnings)
}

/// Row 28: kube-dns says port 0 when asked by the bare name.
#[test]
fn port_0_is_the_default_port() {
    assert_eq!(read(&["mc-0.svc.:0"], &RULES), (vec!["mc-0.svc:11211".into()], vec![]));
    let other = Rules { default_port: 11999, ..RULES };
    assert_eq!(read(&["mc-0.svc.:0"], &other).0, ["mc-0.svc:11999"]);
}

/// Row 29: N pods with two ports are N nodes.
#[test]
fn several_ports_of_a_pod_are_one_node() {
    let both = ["mc-0.svc.:9150", "mc-0.svc.:11211", "mc-1.svc.:11211", "mc-1.svc.:9150"];
    let (found, warnings) = read(&both, &RULES);
    assert_eq!(found, ["mc-0.svc:11211", "mc-1.svc:11211"]);
    assert_eq!(warnings[0], Warning::SeveralPorts { host: "mc-0.svc".into(), taken: 11211 });

    let neither_usual = ["mc-0.svc.:11999", "mc-0.svc.:9150"];
    assert_eq!(read(&neither_usual, &RULES).0, ["mc-0.svc:9150"], "the lowest, and the warning says so");

    let filtered = Rules { port: Some(11999), ..RULES };
    assert_eq!(read(&neither_usual, &filtered), (vec!["mc-0.svc:11999".into()], vec![]));
}

/// Row 29: a filter that lets nothing through is a mistake; it must not look like an empty service.
#[test]
fn a_port_nobody_has_is_a_configuration_error() {
    let filtered = Rules { port: Some(7), ..RULES };
    let error = normalize(answer(&["mc-0.svc.:11211"]), &filtered).unwrap_err();
    assert_eq!(error.to_string(), "the service is listed, but no pod of it has port 7");
}

/// Row 31: priorities are passed on, all of them.
#[test]
fn priorities_are_passed_on() {
    let (membership, _) = normalize(answer(&["a.:1/10", "b.:1/20"]), &RULES).unwrap();
    assert_eq!(membership.endpoints().iter().map(Endpoint::priority).collect::<Vec<_>>(), [10, 20]);
}

/// Row 32: weights are noise, unless told otherwise.
#[test]
fn weights_are_ignored() {
    let (membership, _) = normalize(answer(&["a.:1/0/33", "b.:1/0/25", "c.:1/0/0"]), &RULES).unwrap();
    assert!(membership.endpoints().iter().all(|endpoint| endpoint.weight() == 1));
}

/// Row 33: weights in proportion, none of them nothing, each priority for itself.
#[test]
fn weights_can_be_relative() {
    let rules = Rules { weights: WeightPolicy::Relative, ..RULES };
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
        let (membership, _) = normalize(answer(&records), &rules).unwrap();
        let found: Vec<_> = membership.endpoints().iter().map(Endpoint::weight).collect();
        assert_eq!((&found[..expected.len()], found[expected.len()]), (&expected[..], 1), "{weights:?}");
    }
}

/// Row 34: both addresses of a dual-stack pod, IPv4 first; glue of others, and doubles, are left out.
#[test]
fn glue_goes_to_its_node() {
    let glue = [
        ("MC-0.svc.", "fd00::1"),
        ("mc-0.svc", "10.0.0.2"),
        ("mc-0.svc.", "10.0.0.1"),
        ("mc-0.svc.", "10.0.0.2"),
        ("other.svc.", "10.9.9.9"),
    ];
    let (membership, _) = normalize(with_glue(answer(&["mc-0.svc.:1", "mc-1.svc.:1"]), &glue), &RULES).unwrap();
    let addresses: Vec<_> = membership.endpoints()[0].addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.2", "10.0.0.1", "fd00::1"]);
    assert!(membership.endpoints()[1].addresses().is_empty());
    assert_eq!(membership.ttl(), Some(Duration::from_secs(5)));
}

/// Row 35: spellings and doubles of one name are one node, whichever record comes first.
#[test]
fn doubles_are_one_node_in_any_order() {
    let rules = Rules { weights: WeightPolicy::Relative, ..RULES };
    let mut records = ["MC-0.svc.:11211/1/8", "mc-0.svc:11211/0/2", "mc-0.SVC.:0/0/4", "mc-1.svc.:11211/0/2"];
    let (forth, _) = normalize(answer(&records), &rules).unwrap();
    records.reverse();
    let (back, _) = normalize(answer(&records), &rules).unwrap();
    assert_eq!(forth, back);
    assert_eq!(ids(&forth), ["mc-0.svc:11211", "mc-1.svc:11211"]);
    assert_eq!((forth.endpoints()[0].priority(), forth.endpoints()[0].weight()), (0, 2));
}

/// Row 36: what is no host is left out, and the others are kept.
#[test]
fn unusable_targets_are_left_out() {
    let long = format!("{}.:1", "a".repeat(64));
    let longer = format!("{}:1", "a23456789.".repeat(26));
    let (found, warnings) = read(&[".:1", &long, &longer, "a b.:1", "a\\032b.:1", "mc-0.svc.:1"], &RULES);
    assert_eq!(found, ["mc-0.svc:1"]);
    assert_eq!(warnings.len(), 4, "\".\" is no mistake: {warnings:?}");
    assert!(read(&[".:1"], &RULES).0.is_empty());
}

/// Row 38: pods named after their addresses work, with a warning.
#[test]
fn names_made_of_addresses_are_warned_about() {
    for name in ["10-1-2-3.mc.svc", "fd00--1.mc.svc", "2001-db8-0-0-0-0-0-1.mc.svc", "fd00--0.mc.svc"] {
        let (found, warnings) = read(&[&format!("{name}.:1")], &RULES);
        assert_eq!(found, [format!("{name}:1")]);
        assert_eq!(warnings, [Warning::UnstableName { host: name.into() }]);
    }
    for name in ["mc-0.mc.svc", "10-1-2.mc.svc", "10-1-2-3-4.mc.svc", "a-b-c-d.mc.svc"] {
        assert_eq!(read(&[&format!("{name}.:1")], &RULES).1, []);
    }
}
