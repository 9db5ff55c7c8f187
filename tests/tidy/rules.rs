//! The rules. Each is a function from the tree to sentences about what is wrong.

use std::fmt::Write;

use crate::source::{Source, Tree};

/// Layers of `ARCHITECTURE.md`: a module may use those of smaller numbers.
const LAYERS: &[(&str, u8)] = &[
    ("mqtt", 0),
    ("route", 1),
    ("message", 1),
    ("ledger", 1),
    ("session", 2),
    ("journal", 3),
    ("ops", 3),
    ("clock", 3),
    ("node", 4),
    ("auth", 4),
    ("net", 5),
    ("config", 6),
    ("topics", 6),
    ("server", 6),
    ("main", 7),
    ("cli", 7),
];

/// Uses within one layer: who, and the beginning of what.
const SAME_LAYER: &[(&str, &str)] = &[
    ("ledger", "route::partition"),
    ("ledger", "message"),
    ("journal", "clock"),
    ("journal", "ops::tasks"),
    ("ops", "clock"),
    ("topics", "config"),
    ("server", "config"),
    ("server", "topics"),
    ("main", "cli"),
];

/// Who may use a crate: the beginnings of module paths. `*` is everybody, `3+` everybody from that layer on.
const CRATES: &[(&str, &[&str])] = &[
    ("bytes", &["*"]),
    ("memchr", &["*"]),
    ("slab", &["*"]),
    ("smallvec", &["*"]),
    ("thiserror", &["*"]),
    ("pin_project_lite", &["ops::tasks"]),
    ("prost", &["message", "ledger"]),
    ("rand", &["3+"]),
    ("tokio", &["3+"]),
    ("tracing", &["3+"]),
    ("kafka_protocol", &["journal::kafka"]),
    ("crc32c", &["journal::kafka"]),
    ("flate2", &["journal::kafka"]),
    ("lz4_flex", &["journal::kafka"]),
    ("ruzstd", &["journal::kafka"]),
    ("snap", &["journal::kafka"]),
    ("socket2", &["journal::kafka"]),
    ("uuid", &["journal::kafka"]),
    ("prometheus", &["ops::metrics"]),
    ("axum", &["ops::admin"]),
    ("tracing_subscriber", &["ops::logging"]),
    ("figment", &["config"]),
    ("toml", &["config"]),
    ("serde", &["config"]),
    ("serde_json", &["ops", "auth", "config"]),
    ("clap", &["main", "cli"]),
    ("millrace", &["main", "cli"]),
];

/// Texts that only some files may hold: text, beginnings of the module paths that may, why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("Instant::now", &["clock"], "time is an input; clock::now reads it"),
    ("SystemTime", &["clock"], "time is an input; clock::wall_ms reads it"),
    ("tokio::spawn", &["ops::tasks"], "ops::tasks::spawn names and watches every task"),
    ("thread::spawn", &["ops::tasks"], "ops::tasks names and watches what runs"),
    ("unbounded_channel", &[], "every queue is bounded and its bound is named"),
    (".unwrap()", &[], "an error is a value, or an expect with the reason why it cannot be"),
    ("todo!", &[], "what is not there yet is not in the code either"),
    ("unimplemented!", &[], "what is not there yet is not in the code either"),
    ("dbg!", &[], "ops::logging is for what should be seen"),
];

/// Texts that layers 0 to 2 must not hold.
const NOT_IN_PURE_LAYERS: &[(&str, &str)] = &[
    ("async ", "layers 0 to 2 are values in, values out"),
    (".await", "layers 0 to 2 are values in, values out"),
    ("std::net", "sockets belong to the shell"),
    ("std::fs", "files belong to the shell"),
    ("std::env", "the environment belongs to config"),
    ("std::thread", "threads belong to the shell"),
    ("HashMap::new", "its iteration order hangs on a random seed; BTreeMap, or a seeded map that is never iterated"),
];

/// Words that no file may hold, comments included, and what to write instead.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "finish it, or write an issue"),
    (concat!("FIX", "ME"), "finish it, or write an issue"),
    (concat!("XX", "X"), "finish it, or write an issue"),
    (concat!("/ho", "me/"), "no paths of one machine"),
    (concat!("/Us", "ers/"), "no paths of one machine"),
    (concat!("/ro", "ot/"), "no paths of one machine"),
    (concat!("white", "list"), "allow list"),
    (concat!("black", "list"), "deny list"),
];

/// Lines above which a file fails.
const LINES_MAX: usize = 800;
/// Lines above which a file is listed.
const LINES_WANTED: usize = 500;

/// A module may use only modules of lower layers, and the listed ones of its own.
pub fn layers(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in library(tree) {
        let module = module_path(&source.path);
        let Some(own) = layer(&module) else {
            wrong.push(format!("{}: {module} has no layer; give it one in tests/tidy/rules.rs", source.path));
            continue;
        };
        for (line, used) in modules_used(source, &module) {
            let top = first(&used);
            let allowed = top == first(&module)
                || layer(&used).is_some_and(|other| other < own)
                || SAME_LAYER.iter().any(|(who, what)| *who == first(&module) && is_within(&used, what));
            if !allowed {
                wrong.push(format!("{}:{line}: {} must not use {used}", source.path, first(&module)));
            }
        }
    }
    wrong
}

/// A crate is used only where the table says.
pub fn crates(tree: &Tree, dependencies: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in dependencies {
        if !CRATES.iter().any(|(known, _)| known == name) {
            wrong.push(format!("Cargo.toml: who may use {name}? Add it to the table in tests/tidy/rules.rs"));
        }
    }
    for source in library(tree) {
        let module = module_path(&source.path);
        for (name, allowed) in CRATES {
            if allowed.iter().any(|who| matches_module(who, &module)) {
                continue;
            }
            for (line, text) in numbered(&source.product) {
                if names_crate(text, name) {
                    wrong.push(format!("{}:{line}: {module} must not use {name}", source.path));
                }
            }
        }
    }
    wrong
}

/// Clocks, spawns and the like are only where they belong; the pure layers are pure.
pub fn texts(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in &tree.0 {
        let module = module_path(&source.path);
        let in_library = source.path.starts_with("src/");
        let pure = in_library && layer(&module).is_some_and(|layer| layer <= 2);
        for (line, text) in numbered(&source.product) {
            for (word, allowed, why) in ONLY_IN {
                let may = in_library && allowed.iter().any(|who| is_within(&module, who));
                // The load generator measures: it reads clocks and spawns as it likes.
                let binds = in_library || allowed.is_empty();
                if binds && !may && text.contains(word) {
                    wrong.push(format!("{}:{line}: {word}: {why}", source.path));
                }
            }
            for (word, why) in NOT_IN_PURE_LAYERS {
                if pure && text.contains(word) {
                    wrong.push(format!("{}:{line}: {}: {why}", source.path, word.trim()));
                }
            }
        }
    }
    wrong
}

/// Words that belong nowhere, looked for in comments and tests, too.
pub fn words(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in &tree.0 {
        for (line, text) in numbered(&source.text) {
            for (word, instead) in WORDS.iter().filter(|(word, _)| text.contains(word)) {
                wrong.push(format!("{}:{line}: {word}: {instead}", source.path));
            }
        }
    }
    wrong
}

/// Files over the limit, and those that are on their way there.
pub fn sizes(tree: &Tree) -> (Vec<String>, Vec<String>) {
    let describe = |source: &Source, lines: usize| format!("{}: {lines} lines", source.path);
    let long = tree.0.iter().map(|source| (source, source.text.lines().count())).filter(|(_, n)| *n > LINES_WANTED);
    let (fatal, listed): (Vec<_>, Vec<_>) = long.partition(|(_, lines)| *lines > LINES_MAX);
    let sentences = |files: Vec<(&Source, usize)>| files.into_iter().map(|(s, n)| describe(s, n)).collect();
    (sentences(fatal), sentences(listed))
}

/// A test's name is the property that it shows.
pub fn test_names(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in &tree.0 {
        let mut is_test = false;
        for (line, text) in numbered(&source.code) {
            let text = text.trim();
            is_test |= text.starts_with("#[test]") || text.starts_with("#[tokio::test");
            let Some((_, name)) = text.split_once("fn ").filter(|_| is_test) else { continue };
            is_test = false;
            if name.starts_with("test_") {
                let name: String = name.chars().take_while(|c| *c != '(').collect();
                wrong.push(format!("{}:{line}: {name}: name the property, not that it is a test", source.path));
            }
        }
    }
    wrong
}

/// Every dependency has its line in the decision about dependencies.
pub fn reasons(dependencies: &[String], decision: &str) -> Vec<String> {
    let has_reason = |name: &str| decision.lines().any(|line| line.starts_with(&format!("| `{name}`")));
    let missing = dependencies.iter().filter(|name| !has_reason(name));
    missing.map(|name| format!("docs/adr/0005-dependencies.md: no reason for {name}")).collect()
}

/// The names in the sections `[dependencies]` and, if asked for, `[dev-dependencies]` of a Cargo.toml.
pub fn dependencies(manifest: &str, with_dev: bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            counts = line == "[dependencies]" || (with_dev && line == "[dev-dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| counts && !line.starts_with('#')) {
            names.push(name.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    names
}

/// Sentences, one a line.
pub fn listed(sentences: &[String]) -> String {
    sentences.iter().fold(String::new(), |mut text, sentence| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {sentence}");
        text
    })
}

fn library(tree: &Tree) -> impl Iterator<Item = &Source> {
    tree.0.iter().filter(|source| source.path.starts_with("src/") && source.path != "src/lib.rs")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// `src/journal/kafka/mod.rs` is `journal::kafka`.
fn module_path(path: &str) -> String {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    inner.trim_end_matches("/mod").replace('/', "::")
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn layer(path: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == first(path)).map(|(_, layer)| *layer)
}

fn is_within(path: &str, outer: &str) -> bool {
    path == outer || path.starts_with(&format!("{outer}::"))
}

fn matches_module(who: &str, module: &str) -> bool {
    match who.strip_suffix('+') {
        Some(from) => layer(module).is_some_and(|layer| from.parse().is_ok_and(|from: u8| layer >= from)),
        None => who == "*" || is_within(module, who),
    }
}

/// Whether a line of code uses a crate: its name at the beginning of a path.
fn names_crate(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        let begins = !before.ends_with(is_part) && (!before.ends_with("::") || before.trim() == "use ::");
        begins && (after.starts_with("::") || (before.trim_end().ends_with("use") && after.starts_with(';')))
    })
}

/// The modules of this crate that `source` names, as (line, path from the root).
fn modules_used(source: &Source, module: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    // Modules around this file, so that as many `super`s lead to the root.
    let depth = module.split("::").count();
    let code = &source.product;
    for prefix in ["crate::", "super::", "millrace::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = &code[at + prefix.len()..];
            let mut supers = usize::from(prefix == "super::");
            while let Some(outer) = rest.strip_prefix("super::").filter(|_| supers > 0) {
                rest = outer;
                supers += 1;
            }
            if supers > 0 && supers < depth {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            used.extend(heads(rest).into_iter().map(|path| (line, path)));
        }
    }
    // Macros, types and functions of lib.rs itself have no layer and are not there.
    used.retain(|(_, path)| path != "self" && !path.is_empty());
    used
}

/// The paths at the beginning of `rest`: one, or those in a group `{a, b::{c, d}}`, each up to two segments.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else { return vec![path_head(rest)] };
    let mut found = vec![path_head(group)];
    let mut depth = 0_usize;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(path_head(&group[at + 1..])),
            _ => {}
        }
    }
    found
}

/// `ops::tasks` of `ops::tasks::spawn(..)`.
fn path_head(text: &str) -> String {
    let path: String =
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
    path.trim_end_matches(':').split("::").take(2).collect::<Vec<_>>().join("::")
}
