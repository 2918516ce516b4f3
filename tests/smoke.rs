//! The operator's tool, run as an operator runs it.
//!
//! A plain `cargo test` builds it first. Chosen targets do not (`--test smoke`, `--all-targets`): then
//! `cargo build --example smoke` has to come before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on had better say so where it stands")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Ttl};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

/// What may be read back is decided here; its own tests run with ours.
#[path = "../examples/smoke/value.rs"]
#[expect(dead_code, reason = "the example uses all of it")]
mod value;

fn smoke(arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path: PathBuf = built.join("examples").join(format!("smoke{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "there is no {}: build it with `cargo build --example smoke`", path.display());
    let mut command = Command::new(path);
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Output {
    smoke(arguments).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every line is an object, with the fields its kind of event has; the last one is the summary.
fn events(output: &Output) -> Vec<Value> {
    const TALLY: [&str; 6] = ["ops", "hits", "misses", "wrong", "stale", "late"];
    const MICROS: [&str; 4] = ["p50_us", "p99_us", "p999_us", "max_us"];
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        let numbers = |names: &[&str]| names.iter().all(|name| event[name].is_u64());
        let lists = |names: &[&str]| names.iter().all(|name| event[name].is_array());
        let sound = match event["event"].as_str().unwrap() {
            "nodes" => event["nodes"].as_array().unwrap().iter().all(|node| {
                let address = &node["addr"];
                node["id"].is_string() && (address.is_string() || address.is_null())
            }),
            "second" => numbers(&TALLY) && numbers(&MICROS) && numbers(&["t", "nodes"]) && event["errors"].is_object(),
            "topology" => {
                numbers(&["version"]) && lists(&["added", "removed", "readdressed"]) && event["moved"].is_f64()
            }
            "summary" => numbers(&TALLY) && event["ok"].is_boolean() && event["errors"].is_object(),
            "step" => event["step"].is_string() && lists(&["checks"]),
            "shares" | "pods" => lists(&["nodes"]),
            other => panic!("what is {other}?"),
        };
        assert!(sound, "{event}");
    }
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"nodes"));
    assert_eq!(kinds.iter().position(|&kind| kind == "summary"), Some(kinds.len() - 1));
    events
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// A service's life, gone through as expected.
fn assert_all_is_well(output: &Output) {
    let events = events(output);
    assert!(output.status.success(), "{events:#?}");
    assert_eq!(text(&output.stderr), "");
    let summary = of_kind(&events, "summary")[0];
    assert_eq!((&summary["ok"], &summary["wrong"]), (&Value::from(true), &Value::from(0)));
    let steps = of_kind(&events, "step");
    assert_eq!(steps.len(), 6);
    assert!(steps.iter().all(|step| step["ok"] == true || step["skipped"].is_string()), "{steps:#?}");
    let seen: BTreeSet<&str> = of_kind(&events, "topology")
        .into_iter()
        .flat_map(|change| {
            let happened = |what: &&str| !change[*what].as_array().unwrap().is_empty();
            ["added", "removed", "readdressed"].into_iter().filter(happened)
        })
        .collect();
    assert!(seen.contains("added") && seen.contains("removed"), "{seen:?}");
}

#[tokio::test]
async fn goes_through_a_service_s_life_and_says_so_to_programs() {
    assert_all_is_well(&run(&["--json"]).await);
}

#[tokio::test]
async fn goes_through_it_with_real_servers() {
    assert_all_is_well(&run(&["--json", "--memcached"]).await);
}

#[tokio::test]
async fn goes_through_it_and_says_so_to_people() {
    let output = run(&[]).await;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().last(), Some("all is well"));
    assert_eq!(text(&output.stderr), "");
    assert!(!said.contains('\x1b'), "nothing for terminals in a pipe");
}

#[tokio::test]
async fn watches_a_service_and_tells_every_second_and_change() {
    let service = Service::builder().pods(2).ttl(Duration::from_secs(1)).start().await.unwrap();
    let nameserver = service.dns().addr().to_string();
    let name = service.name();
    #[rustfmt::skip]
    let watching = smoke(&[
        "--json", "--service", name, "--nameserver", &nameserver, "--port-name", "memcached",
        "--poll-min", "100", "--poll-max", "200", "--watch", "4", "--keys", "500", "--rate", "2000", "--timeout", "1000"
    ]);
    let (output, ()) = tokio::join!(output_of(watching), async {
        sleep(Duration::from_secs(2)).await;
        service.scale(3).await.unwrap();
    });
    let events = events(&output);
    assert!(output.status.success(), "{events:#?}");
    let seconds: Vec<_> = of_kind(&events, "second").iter().map(|second| second["t"].as_u64().unwrap()).collect();
    assert_eq!(seconds, [1, 2, 3, 4]);
    assert_eq!(of_kind(&events, "second")[3]["nodes"], 3);
    assert_eq!(of_kind(&events, "topology")[0]["added"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_value_is_found_out() {
    let service = Service::start(2).await.unwrap();
    let nodes = service.pods().iter().map(|pod| pod.addr.to_string()).collect::<Vec<_>>();
    let client = Client::builder().nodes(&nodes).request_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let list = nodes.join(",");
    let watching =
        smoke(&["--json", "--nodes", &list, "--prefix", "spoilt", "--keys", "50", "--watch", "3", "--timeout", "1000"]);
    let (output, ()) = tokio::join!(output_of(watching), async {
        sleep(Duration::from_millis(1500)).await;
        // Sound in itself, and another key's.
        let other = client.get("spoilt:7").await.unwrap().unwrap().value;
        for number in 0..50 {
            client.set(format!("spoilt:{number}"), other.clone(), Ttl::NEVER).await.unwrap();
        }
    });
    let events = events(&output);
    assert_eq!(output.status.code(), Some(1), "{events:#?}");
    let summary = of_kind(&events, "summary")[0];
    assert_eq!(summary["ok"], false);
    assert!(summary["wrong"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_second_without_an_operation_is_told_and_no_success() {
    let service = Service::start(1).await.unwrap();
    let node = service.pods()[0].addr.to_string();
    let watching = smoke(&["--json", "--nodes", &node, "--keys", "50", "--watch", "4", "--timeout", "3000"]);
    let (output, ()) = tokio::join!(output_of(watching), async {
        sleep(Duration::from_millis(1500)).await;
        service.pause(0).await.unwrap();
    });
    let events = events(&output);
    assert_eq!(output.status.code(), Some(1), "{events:#?}");
    let seconds = of_kind(&events, "second");
    assert_eq!(seconds.len(), 4);
    assert!(seconds.iter().any(|second| second["ops"] == 0), "{seconds:#?}");
    assert_eq!(of_kind(&events, "summary")[0]["wrong"], 0);
}

async fn output_of(mut command: Command) -> Output {
    command.output().await.unwrap()
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    let refused: [&[&str]; 12] = [
        &["--frobnicate"],
        &["extra"],
        &["--keys"],
        &["--keys", "0"],
        &["--keys", "many"],
        &["--watch", "0"],
        &["--timeout", "-1"],
        &["--nodes", "no spaces:1"],
        &["--nodes", "a", "--service", "b"],
        &["--nameserver", "127.0.0.1"],
        &["--service", "a", "--nameserver", "dns.example"],
        &["--poll-min", "10", "--poll-max", "5"],
    ];
    for arguments in refused {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).starts_with("smoke: "), "{arguments:?}");
    }
    let help = run(&["--help"]).await;
    assert!(help.status.success() && text(&help.stdout).contains("--removal-grace"));
}

#[tokio::test]
async fn a_service_that_is_not_there_is_an_error_in_time() {
    let service = Service::start(0).await.unwrap();
    let nameserver = service.dns().addr().to_string();
    let output = run(&["--json", "--service", service.name(), "--nameserver", &nameserver]).await;
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    assert!(summary["ok"] == false && summary["error"].as_str().unwrap().contains(service.name()), "{summary}");
    assert!(text(&output.stderr).contains(service.name()));
}
