//! The examples that show how it is used, run as a reader runs them.
//!
//! A plain `cargo test` builds them first. Chosen targets do not: then `cargo build --examples` has to come before.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on had better say so where it stands")]

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = built.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "there is no {}: build it with `cargo build --examples`", path.display());
    path
}

/// On real servers, and where none are installed. Gives what it printed.
async fn run(name: &str) -> [String; 2] {
    let path = built(name);
    let mut real = Command::new(&path);
    let mut embedded = Command::new(&path);
    embedded.env("MEMCACHED", "/there/is/no/memcached");
    let (real, embedded) = tokio::join!(said(&mut real), said(&mut embedded));
    assert!(embedded.contains("0.0.0-memring") && !real.contains("0.0.0-memring"), "{real}{embedded}");
    [real, embedded]
}

async fn said(command: &mut Command) -> String {
    let output = command.env_remove("RUST_LOG").stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// Every placement has a row in each table and in the picture.
#[tokio::test]
async fn balance_is_measured_and_drawn() {
    let file = std::env::temp_dir().join(format!("memring-balance-{}.svg", std::process::id()));
    let mut command = Command::new(built("balance"));
    let said = said(command.arg("--quick").arg("--out").arg(&file)).await;
    let drawn = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    for name in ["native", "dalli", "dskit"] {
        assert_eq!(said.matches(&format!("| {name} | ")).count(), 3, "{name}: {said}");
        assert!(drawn.contains(&format!("\n{name}\n")), "{name}: {drawn}");
    }
}

#[tokio::test]
async fn one_computes_for_a_thousand() {
    for said in run("cache_aside").await {
        let computed = said.lines().filter(|line| line.starts_with("  computed:"));
        assert!(computed.eq([1, 0, 1, 1].map(|times| format!("  computed: {times}"))), "{said}");
    }
}

#[tokio::test]
async fn every_count_and_entry_is_there() {
    for said in run("counter_cas").await {
        assert!(said.contains("1000 different ones, up to Some(1000)") && said.contains("100 are there"), "{said}");
    }
}
