//! The house rules that a compiler cannot see.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Edition, Metadata, MetadataCommand};
use config::LoadError;
use service::metrics::Registry;

/// Each room with the rooms that it may lean on, in tests too. An arrow not drawn here is not
/// allowed. The picture is in `ARCHITECTURE.md`.
const ARROWS: &[(&str, &[&str])] = &[
    ("content", &[]),
    ("certs", &[]),
    ("config", &[]),
    ("protocol", &["content"]),
    ("service", &["config"]),
    ("transport", &["certs", "content", "protocol", "service"]),
    ("member", UP_TO_TRANSPORT),
    ("origin", UP_TO_TRANSPORT),
    ("booster", BELOW_MEMBERS),
    ("client", BELOW_MEMBERS),
    ("tests", EVERYTHING),
    ("benches", EVERYTHING),
];
const UP_TO_TRANSPORT: &[&str] = &[
    "certs",
    "config",
    "content",
    "protocol",
    "service",
    "transport",
];
const BELOW_MEMBERS: &[&str] = &[
    "certs",
    "config",
    "content",
    "member",
    "protocol",
    "service",
    "transport",
];
const EVERYTHING: &[&str] = &[
    "booster",
    "certs",
    "client",
    "config",
    "content",
    "member",
    "origin",
    "protocol",
    "service",
    "transport",
];

/// Files that are longer than [`FILE_LINES_MAX`], each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];
const FILE_LINES_MAX: usize = 500;
/// `main` is a table of contents: what a test would want to call belongs elsewhere.
const MAIN_LINES_MAX: usize = 60;

/// Each example of settings with the loader of the program that it is for.
const EXAMPLES: &[(&str, Loader)] = &[
    ("booster.toml", |path| booster::Config::load(path).map(drop)),
    ("client.toml", |path| client::Config::load(path).map(drop)),
    ("origin.toml", |path| {
        config::load::<origin::config::Config>(path).map(drop)
    }),
];
type Loader = fn(&Path) -> Result<(), LoadError>;

#[test]
fn arrows_point_down() {
    let metadata = metadata();
    let rooms: Vec<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let drawn = ARROWS.iter().find(|(room, _)| *room == name);
        let (_, allowed) = drawn.unwrap_or_else(|| panic!("no arrows are drawn for {name}"));
        let undrawn: Vec<&str> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .filter(|name| rooms.contains(name) && !allowed.contains(name))
            .collect();
        assert!(
            undrawn.is_empty(),
            "{name} leans on {undrawn:?}: draw the arrow or drop it"
        );
    }
    assert_eq!(metadata.packages.len(), rooms.len(), "a room is gone");
}

#[test]
fn every_manifest_keeps_the_rules_of_the_house() {
    for package in metadata().packages {
        let name = &package.name;
        let folder = package
            .manifest_path
            .parent()
            .and_then(|folder| folder.file_name());
        assert_eq!(
            folder,
            Some(name.as_str()),
            "a room is called as its folder"
        );
        assert_eq!(package.edition, Edition::E2024, "{name}");
        assert_eq!(
            package.publish,
            Some(Vec::new()),
            "{name} could be published"
        );
        let manifest = read(package.manifest_path.as_std_path());
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} has lints of its own"
        );
    }
}

#[test]
fn every_source_file_is_short_and_says_what_it_is() {
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        let text = read(&root().join(&path));
        let lines = text.lines().count();
        let main = path.file_name() == Some(OsStr::new("main.rs")) && text.contains("fn main()");
        let lines_max = if main { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        let excused = LONG_FILES.iter().any(|(file, _)| Path::new(file) == path);
        if lines > lines_max && !excused {
            faults.push(format!("{}: {lines} lines, of {lines_max}", path.display()));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{}: begins without //!", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_unfinished_and_no_machine_of_ours_is_in_the_tree() {
    // Put together here, so that this file does not hold what it looks for.
    let unfinished = ["todo", "dbg", "unimplemented"].map(|name| format!("{name}!("));
    let homes = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    let mut faults = Vec::new();
    for path in files(TEXT_FILES) {
        for (number, line) in read(&root().join(&path)).lines().enumerate() {
            let home = homes.iter().any(|home| begins_a_path(line, home));
            if home || unfinished.iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn p18_no_code_of_ours_speaks_before_the_client_is_known() {
    // Put together here, so that this file does not hold what it looks for.
    let early = [
        ["into_", "0rtt"].concat(),
        ["send_half_rtt_data = ", "true"].concat(),
        ["max_early_data_size = ", "1"].concat(),
    ];
    let mut faults = Vec::new();
    for path in files(&["rs"]) {
        let text = read(&root().join(&path));
        faults.extend(early.iter().filter(|it| text.contains(*it)).map(|it| {
            let path = path.display();
            format!("{path}: {it}")
        }));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_test_that_the_page_on_the_cache_names_is_there() {
    let page = read(&root().join("docs/cache.md"));
    let code: String = files(&["rs"])
        .iter()
        .map(|path| read(&root().join(path)))
        .collect();
    let names = page.split('`').skip(1).step_by(2);
    let bug = |name: &&str| {
        let number = name.strip_prefix('b').and_then(|rest| rest.get(..2));
        number.is_some_and(|number| number.bytes().all(|it| it.is_ascii_digit()))
    };
    let tests: Vec<&str> = names.filter(bug).collect();
    assert!(tests.len() >= 12, "{tests:?}");
    for test in tests {
        assert!(code.contains(&format!("fn {test}(")), "there is no {test}");
    }
}

#[test]
fn every_test_that_the_page_on_threats_names_is_there() {
    let page = read(&root().join("docs/threats.md"));
    let code: String = files(&["rs"])
        .iter()
        .map(|path| read(&root().join(path)))
        .collect();
    let mut faults = Vec::new();
    // A test is named by a sentence: four words and more.
    let names = page.split('`').skip(1).step_by(2);
    let sentence = |name: &&str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        name.bytes().all(plain) && name.matches('_').count() >= 4
    };
    for test in names.filter(sentence) {
        if !code.contains(&format!("fn {test}(")) {
            faults.push(format!("there is no {test}"));
        }
    }
    for trap in 1..=24 {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| P{trap} |")));
        let named = row.unwrap_or_default().split('`').skip(1).step_by(2);
        let mut tests = named.filter(|name| name.starts_with(&format!("p{trap}_")));
        if tests.next().is_none() {
            faults.push(format!("P{trap} names no test"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Whether `line` holds an absolute path that begins with `home`.
fn begins_a_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"_-.}".contains(before))
    })
}

#[test]
fn every_example_of_settings_loads() {
    let folder = root().join("config");
    let mut found: Vec<PathBuf> = files(&["toml"])
        .into_iter()
        .filter(|path| path.parent() == Some(Path::new("config")) && !path.ends_with("Cargo.toml"))
        .collect();
    found.sort();
    let expected: Vec<PathBuf> = EXAMPLES
        .iter()
        .map(|(file, _)| Path::new("config").join(file))
        .collect();
    assert_eq!(found, expected);
    for (file, load) in EXAMPLES {
        if let Err(error) = load(&folder.join(file)) {
            panic!("{}", service::Report(&error));
        }
    }
}

#[test]
fn every_metric_is_explained_to_operators() {
    let origin = Registry::new("larder_origin");
    origin::metrics::Metrics::register(&origin).unwrap();
    let booster = Registry::new("larder_booster");
    booster::metrics::Metrics::register(&booster).unwrap();
    let page = read(&root().join("docs/operating.md"));
    let mut registered = [origin.names(), booster.names()].concat();
    let mut explained: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("larder_"))
        .collect();
    registered.sort();
    explained.sort();
    assert_eq!(explained, registered);
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of the tree with one of these endings, or none at all, by their paths in it.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                if !NOT_OURS.contains(&name.to_str().unwrap()) {
                    folders.push(path);
                }
            } else if endings.contains(&path.extension().and_then(OsStr::to_str).unwrap_or("")) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no file of {endings:?} was found");
    found
}

const TEXT_FILES: &[&str] = &[
    "", "json", "md", "rs", "service", "sql", "toml", "yaml", "yml",
];
/// What git and cargo keep in the tree, and what fuzzing leaves there.
const NOT_OURS: &[&str] = &[".git", "artifacts", "corpus", "target"];
