//! What the compiler does not see: layers, who may use which crate, where clocks are read, how long files are.
//!
//! The rules look at text, not at types, so they are quick and a little naive; each has a test here that shows it fail.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use source::Tree;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn repository() -> Tree {
    Tree::read(root(), &["src", "tests", "benches", "loadsim", "fuzz"]).expect("the sources can be read")
}

fn manifest() -> String {
    fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml can be read")
}

fn crate_names(with_dev: bool) -> Vec<String> {
    rules::dependencies(&manifest(), with_dev)
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", rules::listed(wrong));
}

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())))
}

mod the_repository {
    use super::*;

    #[test]
    fn imports_point_to_lower_layers() {
        assert_none(&rules::layers(&repository()));
    }

    #[test]
    fn crates_are_used_where_they_belong() {
        let names: Vec<_> = crate_names(false).iter().map(|name| name.replace('-', "_")).collect();
        assert_none(&rules::crates(&repository(), &names));
    }

    #[test]
    fn clocks_spawns_and_shortcuts_are_where_they_belong() {
        assert_none(&rules::texts(&repository()));
    }

    #[test]
    fn no_word_is_out_of_place() {
        assert_none(&rules::words(&repository()));
    }

    #[test]
    fn no_file_has_too_many_jobs() {
        let (fatal, listed) = rules::sizes(&repository());
        if !listed.is_empty() {
            println!("these files should be split soon:{}", rules::listed(&listed));
        }
        assert_none(&fatal);
    }

    #[test]
    fn tests_are_named_after_properties() {
        assert_none(&rules::test_names(&repository()));
    }

    #[test]
    fn every_dependency_has_a_reason() {
        let decision = fs::read_to_string(root().join("docs/adr/0005-dependencies.md")).unwrap();
        assert_none(&rules::reasons(&crate_names(true), &decision));
    }
}

mod the_rules_can_fail {
    use super::*;

    #[test]
    fn an_upward_import_is_found_in_every_form() {
        for import in [
            "use crate::net::listener;",
            "use crate::{mqtt, net};",
            "use crate::{\n    mqtt::{QoS, Packet},\n    config::Config,\n};",
            "fn f() { crate::server::run() }",
            "use super::super::node;",
        ] {
            let wrong = rules::layers(&tree(&[("src/session/publish.rs", import)]));
            assert_eq!(wrong.len(), 1, "{import}: {wrong:?}");
        }
        assert_eq!(rules::layers(&tree(&[("src/config/mod.rs", "use super::server;")])).len(), 1);
    }

    #[test]
    fn a_downward_import_is_fine() {
        let session = "use crate::mqtt::{QoS, Packet};\nuse super::Session;\nuse super::super::route::trie;";
        assert_none(&rules::layers(&tree(&[("src/session/publish.rs", session)])));
    }

    #[test]
    fn modules_of_one_layer_use_each_other_only_where_listed() {
        let journal = "use crate::clock;\nuse crate::ops::tasks::spawn;";
        assert_none(&rules::layers(&tree(&[("src/journal/memory.rs", journal)])));
        assert_eq!(rules::layers(&tree(&[("src/journal/memory.rs", "use crate::ops::metrics;")])).len(), 1);
        assert_eq!(rules::layers(&tree(&[("src/message/record.rs", "use crate::route;")])).len(), 1);
    }

    #[test]
    fn a_new_module_needs_a_layer() {
        assert_eq!(rules::layers(&tree(&[("src/extras.rs", "")])).len(), 1);
    }

    #[test]
    fn a_crate_in_the_wrong_place_is_found() {
        for (path, text) in [
            ("src/node/writer.rs", "use kafka_protocol::messages;"),
            ("src/net/listener.rs", "use ::prometheus::IntCounter;"),
            ("src/server.rs", "let f = figment::Figment::new();"),
            ("src/session/mod.rs", "use tokio::time;"),
            ("src/route/trie.rs", "tracing::info!(1);"),
        ] {
            assert_eq!(rules::crates(&tree(&[(path, text)]), &[]).len(), 1, "{text}");
        }
        assert_none(&rules::crates(&tree(&[("src/journal/kafka/admin.rs", "use kafka_protocol::messages;")]), &[]));
        assert_none(&rules::crates(&tree(&[("src/mqtt/mod.rs", "let my_tokio::x = self::tokio::y;")]), &[]));
    }

    #[test]
    fn a_new_crate_needs_a_place_and_a_reason() {
        assert_eq!(rules::crates(&tree(&[]), &["left_pad".to_owned()]).len(), 1);
        let names =
            rules::dependencies("[dependencies]\nleft-pad = \"1\"\n[dev-dependencies]\nx.workspace = true\n", true);
        assert_eq!(names, ["left-pad", "x"]);
        assert_eq!(rules::reasons(&names, "| `left-pad` | because |\n").len(), 1);
    }

    #[test]
    fn clocks_and_unwraps_are_found_outside_tests_only() {
        let code = "fn f() { Instant::now(); }\n#[cfg(test)]\nmod tests { fn g() { Instant::now(); x.unwrap(); } }\n";
        assert_eq!(rules::texts(&tree(&[("src/node/writer.rs", code)])).len(), 1);
        assert_eq!(rules::texts(&tree(&[("src/net/mod.rs", "fn f() { x.unwrap(); }")])).len(), 1);
        assert_none(&rules::texts(&tree(&[("src/clock.rs", "fn now() { Instant::now() }")])));
        let files = [("src/net/mod.rs", "#[cfg(test)]\nmod checks;"), ("src/net/checks.rs", "fn f() { x.unwrap(); }")];
        assert_none(&rules::texts(&tree(&files)));
    }

    #[test]
    fn pure_layers_stay_pure() {
        assert_eq!(rules::texts(&tree(&[("src/session/mod.rs", "pub async fn run() {}")])).len(), 1);
        assert_eq!(rules::texts(&tree(&[("src/mqtt/head.rs", "use std::net::IpAddr;")])).len(), 1);
        assert_none(&rules::texts(&tree(&[("src/net/mod.rs", "pub async fn run() {}")])));
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let code = "// Instant::now\n/* x.unwrap() /* nested */ */ let a = \"x.unwrap()\"; let b = r#\"todo!(\"\"#; let c = '\"';\n\
                    let d: &'static str = b\"todo!\\\"\";";
        assert_none(&rules::texts(&tree(&[("src/net/mod.rs", code)])));
        assert_eq!(rules::texts(&tree(&[("src/net/mod.rs", "let c = '\"'; x.unwrap(); // \"")])).len(), 1);
        assert_eq!(rules::texts(&tree(&[("src/net/mod.rs", "fn f<'a>(x: &'a str) { x.unwrap(); }")])).len(), 1);
    }

    #[test]
    fn words_are_found_in_comments_too() {
        assert_eq!(rules::words(&tree(&[("src/net/mod.rs", concat!("// TO", "DO: later"))])).len(), 1);
    }

    #[test]
    fn long_files_are_listed_and_longer_ones_refused() {
        let (fatal, listed) = rules::sizes(&tree(&[("src/a.rs", &"\n".repeat(501)), ("src/b.rs", &"\n".repeat(801))]));
        assert_eq!((fatal.len(), listed.len()), (1, 1));
    }

    #[test]
    fn a_test_that_is_only_called_a_test_is_found() {
        let code = "#[test]\nfn test_it() {}\n#[tokio::test]\nasync fn test_that() {}\n#[test]\nfn it_holds() {}\nfn test_data() {}";
        assert_eq!(rules::test_names(&tree(&[("tests/a.rs", code)])).len(), 2);
    }
}
