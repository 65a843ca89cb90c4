//! Imports inside the engine go one way, and no test file is forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where each module stands in the table of the crate's documentation; 0 is the lowest.
fn levels(lib: &str) -> BTreeMap<&str, usize> {
    let table = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .find(|line| line.contains(" <- "))
        .expect("the crate documentation has a table of layers");
    let groups = table.split(" <- ").enumerate();
    groups
        .flat_map(|(level, group)| group.split(", ").map(move |module| (module.trim(), level)))
        .collect()
}

/// Modules that lib.rs declares, without those that are compiled for tests only.
fn declared(lib: &str) -> Vec<&str> {
    let lines: Vec<&str> = lib.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[0] != "#[cfg(test)]")
        .filter_map(|pair| pair[1].trim_start_matches("pub ").strip_prefix("mod "))
        .filter_map(|rest| rest.strip_suffix(';'))
        .collect()
}

/// What lib.rs gives a shorter path: `Error` is from `error`.
fn shortcuts(lib: &str) -> BTreeMap<&str, &str> {
    let uses = lib.lines().filter_map(|line| line.strip_prefix("pub use "));
    uses.flat_map(|line| {
        let (path, names) = match line.split_once("::{") {
            Some((path, names)) => (path, names.trim_end_matches("};")),
            None => line
                .trim_end_matches(';')
                .rsplit_once("::")
                .expect("re-exports have a path"),
        };
        let module = path.split("::").next().unwrap_or(path);
        names.split(", ").map(move |name| (name, module))
    })
    .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources are there") {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every name that follows `crate::` in a source text.
fn edges(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("crate::").map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[test]
fn imports_inside_the_engine_go_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).expect("lib.rs is there");
    let (levels, shortcuts) = (levels(&lib), shortcuts(&lib));
    for module in declared(&lib) {
        assert!(levels.contains_key(module), "{module} has no layer");
    }
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for file in files {
        let place = file.strip_prefix(&src).expect("it was found there");
        let first = place.iter().next().and_then(|part| part.to_str());
        let module = first.expect("names are UTF-8").trim_end_matches(".rs");
        // The crate root, and modules compiled for tests only, may use everything.
        let Some(level) = levels.get(module) else {
            continue;
        };
        let text = fs::read_to_string(&file).expect("sources are UTF-8");
        for name in edges(&text) {
            let target = shortcuts.get(name).copied().unwrap_or(name);
            match levels.get(target) {
                Some(other) if other <= level => checked += 1,
                Some(_) => wrong.push(format!("{}: {module} uses {target}", place.display())),
                None => wrong.push(format!("{}: unknown crate::{name}", place.display())),
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(checked > 100, "only {checked} imports were seen");
}

#[test]
fn every_file_of_these_tests_is_a_module() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = include_str!("main.rs");
    for entry in fs::read_dir(&dir).expect("the tests are there") {
        let path = entry.expect("the directory can be read").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let name = stem.expect("names are UTF-8");
        let listed = name == "main" || main.contains(&format!("mod {name};"));
        assert!(listed, "{} is not in main.rs", path.display());
    }
}

#[test]
fn crates_depend_on_each_other_one_way_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let terminal = ["clap", "indicatif", "anyhow"];
    let cases: [(&str, &[&str]); 4] = [
        ("engine", &["grove-", "fuser", "rpm"]),
        ("fusefs", &["grove-compose", "grove-cli", "rpm"]),
        ("tools/compose", &["grove-fusefs", "grove-cli", "fuser"]),
        ("tools/cli", &["fuser", "rpm", "sled"]),
    ];
    for (folder, banned) in cases {
        let manifest = fs::read_to_string(root.join(folder).join("Cargo.toml"));
        let manifest = manifest.expect("each crate has a manifest");
        let (_, rest) = manifest
            .split_once("\n[dependencies]\n")
            .expect("each crate has dependencies");
        let names = rest
            .lines()
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split(['.', ' ', '=']).next());
        for name in names {
            let wrong = banned
                .iter()
                .any(|ban| name == *ban || (ban.ends_with('-') && name.starts_with(ban)))
                || (folder != "tools/cli" && terminal.contains(&name));
            assert!(!wrong, "{folder} must not depend on {name}");
        }
    }
}
