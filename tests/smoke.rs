//! Runs the smoke example as an operator runs it.
//!
//! `cargo test` builds the example first. `cargo test --test smoke` and `--all-targets` do not, so run
//! `cargo build --example smoke` before them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Ttl};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

/// Included so that its unit tests run: tests of an example do not run by default.
#[path = "../examples/smoke/value.rs"]
#[expect(dead_code, reason = "only the example uses all of it")]
mod value;

fn smoke(arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path: PathBuf = profile_dir.join("examples").join(format!("smoke{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} does not exist: build it with `cargo build --example smoke`", path.display());
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

/// Parses the output, and checks the fields of each event and the order of events: nodes first, the summary last. Omits
/// runs that the example repeated because the machine stalled.
fn parse_events(output: &Output) -> Vec<Value> {
    const COUNTS: [&str; 6] = ["ops", "hits", "misses", "wrong", "stale", "late"];
    const LATENCIES: [&str; 4] = ["p50_us", "p99_us", "p999_us", "max_us"];
    let mut events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    if let Some(retry) = events.iter().rposition(|event| event["event"] == "retry") {
        events.drain(..=retry);
    }
    for event in &events {
        let are_numbers = |names: &[&str]| names.iter().all(|name| event[name].is_u64());
        let are_lists = |names: &[&str]| names.iter().all(|name| event[name].is_array());
        let is_valid = match event["event"].as_str().unwrap() {
            "nodes" => event["nodes"].as_array().unwrap().iter().all(|node| {
                let address = &node["addr"];
                node["id"].is_string() && (address.is_string() || address.is_null())
            }),
            "second" => {
                are_numbers(&COUNTS)
                    && are_numbers(&LATENCIES)
                    && are_numbers(&["t", "nodes"])
                    && event["errors"].is_object()
            }
            "topology" => {
                are_numbers(&["version"]) && are_lists(&["added", "removed", "readdressed"]) && event["moved"].is_f64()
            }
            "summary" => are_numbers(&COUNTS) && event["ok"].is_boolean() && event["errors"].is_object(),
            "step" => event["step"].is_string() && are_lists(&["checks"]),
            "shares" | "pods" => are_lists(&["nodes"]),
            other => panic!("unknown event {other}"),
        };
        assert!(is_valid, "{event}");
    }
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"nodes"));
    assert_eq!(kinds.iter().position(|&kind| kind == "summary"), Some(kinds.len() - 1));
    events
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// Asserts that all steps passed or were skipped, and that the topology changed.
fn assert_passed(output: &Output) {
    let events = parse_events(output);
    assert!(output.status.success(), "{events:#?}");
    assert_eq!(text(&output.stderr), "");
    let summary = of_kind(&events, "summary")[0];
    assert_eq!((&summary["ok"], &summary["wrong"]), (&Value::from(true), &Value::from(0)));
    let steps = of_kind(&events, "step");
    assert_eq!(steps.len(), 6);
    assert!(steps.iter().all(|step| step["ok"] == true || step["skipped"].is_string()), "{steps:#?}");
    let changes: BTreeSet<&str> = of_kind(&events, "topology")
        .into_iter()
        .flat_map(|change| {
            let is_present = |field: &&str| !change[*field].as_array().unwrap().is_empty();
            ["added", "removed", "readdressed"].into_iter().filter(is_present)
        })
        .collect();
    assert!(changes.contains("added") && changes.contains("removed"), "{changes:?}");
}

#[tokio::test]
async fn all_steps_pass_with_json_output() {
    assert_passed(&run(&["--json"]).await);
}

#[tokio::test]
async fn all_steps_pass_with_memcached_processes() {
    assert_passed(&run(&["--json", "--memcached"]).await);
}

#[tokio::test]
async fn all_steps_pass_with_text_output() {
    let output = run(&[]).await;
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert_eq!(report.lines().last(), Some("PASSED"));
    assert_eq!(text(&output.stderr), "");
    assert!(!report.contains('\x1b'), "escape sequences in a pipe");
}

#[tokio::test]
async fn watch_reports_every_second_and_topology_change() {
    let service = Service::builder().pods(2).ttl(Duration::from_secs(1)).start().await.unwrap();
    let nameserver = service.dns().addr().to_string();
    let name = service.name();
    #[rustfmt::skip]
    let command = smoke(&[
        "--json", "--service", name, "--nameserver", &nameserver, "--port-name", "memcached",
        "--poll-min", "100", "--poll-max", "200", "--watch", "4", "--keys", "500", "--rate", "2000", "--timeout", "1000"
    ]);
    let (output, ()) = tokio::join!(output_of(command), async {
        sleep(Duration::from_secs(2)).await;
        service.scale(3).await.unwrap();
    });
    let events = parse_events(&output);
    assert!(output.status.success(), "{events:#?}");
    let seconds: Vec<_> = of_kind(&events, "second").iter().map(|second| second["t"].as_u64().unwrap()).collect();
    assert_eq!(seconds, [1, 2, 3, 4]);
    assert_eq!(of_kind(&events, "second")[3]["nodes"], 3);
    assert_eq!(of_kind(&events, "topology")[0]["added"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_value_fails_the_run() {
    let service = Service::start(2).await.unwrap();
    let nodes = service.pods().iter().map(|pod| pod.addr.to_string()).collect::<Vec<_>>();
    let client = Client::builder().nodes(&nodes).request_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let list = nodes.join(",");
    let command =
        smoke(&["--json", "--nodes", &list, "--prefix", "spoilt", "--keys", "50", "--watch", "3", "--timeout", "1000"]);
    let (output, ()) = tokio::join!(output_of(command), async {
        sleep(Duration::from_millis(1500)).await;
        // A valid value, but of another key.
        let other = client.get("spoilt:7").await.unwrap().unwrap().value;
        for number in 0..50 {
            client.set(format!("spoilt:{number}"), other.clone(), Ttl::NEVER).await.unwrap();
        }
    });
    let events = parse_events(&output);
    assert_eq!(output.status.code(), Some(1), "{events:#?}");
    let summary = of_kind(&events, "summary")[0];
    assert_eq!(summary["ok"], false);
    assert!(summary["wrong"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_second_without_an_operation_fails_the_run() {
    let service = Service::start(1).await.unwrap();
    let node = service.pods()[0].addr.to_string();
    let command = smoke(&["--json", "--nodes", &node, "--keys", "50", "--watch", "4", "--timeout", "3000"]);
    let (output, ()) = tokio::join!(output_of(command), async {
        sleep(Duration::from_millis(1500)).await;
        service.pause(0).await.unwrap();
    });
    let events = parse_events(&output);
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
async fn invalid_arguments_are_usage_errors() {
    let invalid: [&[&str]; 12] = [
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
    for arguments in invalid {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).starts_with("smoke: "), "{arguments:?}");
    }
    let help = run(&["--help"]).await;
    assert!(help.status.success() && text(&help.stdout).contains("--removal-grace"));
}

#[tokio::test]
async fn a_service_without_pods_is_an_error() {
    let service = Service::start(0).await.unwrap();
    let nameserver = service.dns().addr().to_string();
    let output = run(&["--json", "--service", service.name(), "--nameserver", &nameserver]).await;
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    assert!(summary["ok"] == false && summary["error"].as_str().unwrap().contains(service.name()), "{summary}");
    assert!(text(&output.stderr).contains(service.name()));
}
