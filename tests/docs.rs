//! Pages of documentation against the source: what they cite and list must exist.

#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How comments cite rows: followed by numbers, such as `9`, `9 and 11` or `13 and 15 to 18`.
const CITATIONS: [&str; 2] = ["docs/discovery.md, row ", "docs/discovery.md, rows "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    read("docs/discovery.md")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Returns the cells of each table row under a heading, without the table's own heading.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split_once(&format!("\n{heading}\n")).unwrap().1;
    let level = heading.split(' ').next().unwrap();
    let section = section.split_once(&format!("\n{level} ")).map_or(section, |(section, _)| section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    rows.filter(|cells| cells[0] != "row" && cells[0] != "option or constant").collect()
}

fn in_code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

/// Returns the tests cited for each row.
fn cited_tests(page: &str) -> BTreeMap<u32, BTreeSet<String>> {
    let mut tests: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for cells in table(page, "## The test of each row") {
        let of_row = tests.entry(cells[0].parse().unwrap()).or_default();
        match in_code(&cells[1]) {
            Some(test) => assert!(of_row.insert(test.to_owned()), "{cells:?} is there twice"),
            None => assert_eq!(cells[1], "no test yet"),
        }
    }
    tests
}

/// Returns the paths and texts of all Rust files of the library and of its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join("src"), root().join("tests")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!()) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// Returns the paths of a test that is defined in this file, without and with an inline module `tests`.
fn test_paths(file: &Path, test: &str) -> [String; 2] {
    let file = file.with_extension("").to_str().unwrap().replace('/', "::");
    let file = file.strip_prefix("src::").or_else(|| file.strip_prefix("tests::")).unwrap();
    let module = file.strip_suffix("::main").unwrap_or(file);
    [format!("{module}::{test}"), format!("{module}::tests::{test}")]
}

/// Returns the paths of all functions, and of the modules that hold them.
fn existing_paths() -> BTreeSet<String> {
    let mut existing = BTreeSet::new();
    for (file, text) in sources() {
        for name in text.lines().filter_map(function_name) {
            let paths = test_paths(&file, name);
            existing.extend(paths[0].rsplit_once("::").map(|(module, _)| module.to_owned()));
            existing.extend(paths);
        }
    }
    existing
}

/// Returns what stands in backticks in a line or a page.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    line.split(['(', '<']).next()
}

/// Returns the rows cited in a line of a comment.
fn cited_rows(line: &str) -> Vec<u32> {
    let Some((_, numbers)) = CITATIONS.iter().find_map(|citation| line.split_once(citation)) else { return Vec::new() };
    let numbers = numbers.split([':', '.']).next().unwrap().replace(',', " ");
    let mut rows = Vec::new();
    let mut is_range = false;
    for word in numbers.split_whitespace() {
        match word.parse::<u32>() {
            Ok(row) if is_range => rows.extend(rows.last().unwrap() + 1..=row),
            Ok(row) => rows.push(row),
            Err(_) if word != "and" && word != "to" => break,
            Err(_) => {}
        }
        is_range = word == "to";
    }
    assert!(!rows.is_empty(), "{line}");
    rows
}

#[test]
fn every_row_is_there_once_and_has_a_line_in_the_table_of_tests() {
    let page = page();
    let rows: Vec<u32> =
        table(&page, "## Failures, row by row").iter().map(|cells| cells[0].parse().unwrap()).collect();
    assert!(rows.is_sorted_by(|row, next| row < next), "{rows:?}");
    assert_eq!(cited_tests(&page).into_keys().collect::<Vec<_>>(), rows);
}

#[test]
fn every_cited_test_exists() {
    let existing = existing_paths();
    for (row, tests) in cited_tests(&page()) {
        for test in tests {
            assert!(existing.contains(&test), "row {row}: no test {test}; rename it in docs/discovery.md too");
        }
    }
}

/// tests/README.md cites unit tests as `lib <path>`, and others as `<test program> <path>`.
#[test]
fn every_test_in_the_list_of_defects_exists() {
    let (existing, page) = (existing_paths(), read("tests/README.md"));
    let mut cited = 0;
    for line in page.lines().filter(|line| line.starts_with("  - ")) {
        for span in code_spans(line).filter(|span| span.contains("::") || span.contains(' ')) {
            let path = match span.split_once(' ') {
                None => span.to_owned(),
                Some(("lib", path)) => path.to_owned(),
                Some((program, path)) => format!("{program}::{path}"),
            };
            assert!(existing.contains(&path), "no test {path}; rename it in tests/README.md too");
            cited += 1;
        }
    }
    assert!(cited > 40, "{cited}");
}

#[test]
fn every_comment_on_a_test_that_cites_a_row_is_in_the_table() {
    let cited = cited_tests(&page());
    for (file, text) in sources() {
        let mut above_next = Vec::new();
        let mut current = None;
        for line in text.lines() {
            let rows = cited_rows(line);
            assert!(rows.iter().all(|row| cited.contains_key(row)), "{}: {line}", file.display());
            let checked = match function_name(line) {
                Some(test) => {
                    current = Some(test);
                    std::mem::take(&mut above_next)
                }
                None if line.trim_start().starts_with("///") => {
                    above_next.extend(rows);
                    continue;
                }
                None => rows,
            };
            for row in checked {
                let test = current.unwrap();
                let paths = test_paths(&file, test);
                let is_cited = paths.iter().any(|path| cited[&row].contains(path));
                assert!(is_cited, "{}: {test} is not in docs/discovery.md, row {row}", file.display());
            }
        }
    }
}

#[test]
fn every_timer_exists() {
    let sources = sources();
    let timers = table(&page(), "## Timers");
    let names: Vec<_> = timers.iter().filter_map(|cells| in_code(&cells[0])).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let forms = [format!("pub fn {name}("), format!("const {name}: ")];
        let exists = sources.iter().any(|(_, text)| forms.iter().any(|form| text.contains(form)));
        assert!(exists, "no option or constant {name}");
    }
}

/// ARCHITECTURE.md names methods and variants as `Type::name`.
#[test]
fn every_method_named_in_the_architecture_exists() {
    let (page, sources) = (read("ARCHITECTURE.md"), sources());
    let (page, _) = page.split_once("\nsrc/\n").unwrap();
    let text: String = page.split("\n```\n").step_by(2).collect();
    let names: BTreeSet<(&str, &str)> = code_spans(&text).filter_map(|span| span.rsplit_once("::")).collect();
    assert!(names.len() > 30, "{names:?}");
    for (owner, name) in names {
        let forms = ["fn NAME(", "fn NAME<", "    NAME(", "    NAME,"].map(|form| form.replace("NAME", name));
        let exists = sources
            .iter()
            .filter(|(file, text)| file.starts_with("src") && text.contains(owner))
            .any(|(_, text)| forms.iter().any(|form| text.contains(form)));
        assert!(exists, "no {owner}::{name}");
    }
}

/// The list of files in ARCHITECTURE.md has every file of `src` but tests, and no other.
#[test]
fn every_file_is_in_the_layout_tree() {
    let page = read("ARCHITECTURE.md");
    let (_, tree) = page.split_once("\nsrc/\n").unwrap();
    let (tree, _) = tree.split_once("\n```").unwrap();
    let mut listed = BTreeSet::new();
    let mut folder = String::new();
    for line in tree.lines() {
        let path = line.split_whitespace().next().unwrap();
        let is_nested = line.starts_with("    ");
        if path.ends_with('/') {
            path.clone_into(&mut folder);
        } else {
            assert!(line.split_whitespace().count() > 1, "{path} has no description");
            listed.insert(format!("src/{}{path}", if is_nested { &folder } else { "" }));
        }
    }
    let existing: BTreeSet<String> = sources().into_iter().map(|(file, _)| file.to_str().unwrap().to_owned()).collect();
    let existing = existing.into_iter().filter(|file| file.starts_with("src/") && !file.contains("tests"));
    assert_eq!(existing.collect::<BTreeSet<_>>(), listed);
}
