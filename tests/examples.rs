//! Runs the examples as a reader runs them, and checks their output.
//!
//! `cargo test` without a target builds the examples first. Before `cargo test --test examples`, run
//! `cargo build --examples`.

#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

/// Returns the path of a built example.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = target.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// Runs an example on real servers, and again on embedded pods, as where memcached is not installed. Returns both
/// outputs.
async fn run(name: &str) -> [String; 2] {
    let path = example(name);
    let mut real = Command::new(&path);
    let mut embedded = Command::new(&path);
    embedded.env("MEMCACHED", "/there/is/no/memcached");
    let (real, embedded) = tokio::join!(output_of(&mut real), output_of(&mut embedded));
    assert!(embedded.contains("0.0.0-memring") && !real.contains("0.0.0-memring"), "{real}{embedded}");
    [real, embedded]
}

/// Runs a command that must succeed, and returns its standard output and standard error.
async fn output_of(command: &mut Command) -> String {
    let output = command.env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test]
async fn balance_has_each_placement_in_every_table_and_in_the_picture() {
    let file = std::env::temp_dir().join(format!("memring-balance-{}.svg", std::process::id()));
    let mut command = Command::new(example("balance"));
    let output = output_of(command.arg("--quick").arg("--out").arg(&file)).await;
    let picture = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    for name in ["native", "dalli", "dskit"] {
        assert_eq!(output.matches(&format!("| {name} | ")).count(), 3, "{name}: {output}");
        assert!(picture.contains(&format!("\n{name}\n")), "{name}: {picture}");
    }
}

#[tokio::test]
async fn cache_aside_computes_each_value_once_for_all_callers() {
    for output in run("cache_aside").await {
        let computed = output.lines().filter(|line| line.starts_with("  computations:"));
        assert!(computed.eq([1, 0, 1, 1].map(|times| format!("  computations: {times}"))), "{output}");
    }
}

#[tokio::test]
async fn counter_cas_loses_no_count_and_no_entry() {
    for output in run("counter_cas").await {
        let has_counts = output.contains("1000 distinct numbers up to Some(1000)");
        assert!(has_counts && output.contains(": 100 entries after"), "{output}");
    }
}
