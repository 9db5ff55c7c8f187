//! Topic names, filters, share names and client ids (MQTT5 §4.7, §4.8.2, §3.1.3.1).

use millrace::mqtt::topic::{SharedFilter, check_filter, check_name};
use millrace::mqtt::{ClientId, TopicFilter, TopicName};

#[test]
fn topic_names_have_no_wildcard_and_at_least_one_character() {
    for name in ["a", "/", "//", " ", "a/b", "/a", "a/", "$SYS/a", "$share/g/a", "ü", "\u{feff}", "\u{1}"] {
        assert!(TopicName::parse(name).is_ok(), "{name:?}");
    }
    for name in ["", "+", "#", "a/+", "a+", "#a", "a\u{0}", "\u{0}"] {
        assert!(TopicName::parse(name).is_err(), "{name:?}");
        assert!(check_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn no_text_is_longer_than_a_length_field_can_say() {
    let longest = "a".repeat(65_535);
    let longer = "a".repeat(65_536);
    assert!(TopicName::parse(&longest).is_ok() && TopicName::parse(&longer).is_err());
    assert!(TopicFilter::parse(&longest).is_ok() && TopicFilter::parse(&longer).is_err());
    assert!(ClientId::parse(&longest, usize::MAX).is_ok() && ClientId::parse(&longer, usize::MAX).is_err());
    assert!(SharedFilter::parse(&format!("$share/g/{longest}")).is_err());
}

/// Every wildcard or U+0000 is found, wherever it stands.
#[test]
fn no_position_hides_an_illegal_character() {
    for bytes in [1, 7, 8, 15, 16, 31, 32, 33, 64, 65] {
        for at in 0..bytes {
            for illegal in ["+", "#", "\0"] {
                let mut name = "a".repeat(bytes);
                name.replace_range(at..=at, illegal);
                assert!(check_name(&name).is_err(), "{name:?}");
            }
        }
    }
}

#[test]
fn wildcards_fill_their_level_and_the_hash_is_last() {
    for filter in ["#", "+", "/#", "+/#", "a/#", "+/+", "/+", "a/+/b", "+/", "//#", "$SYS/#", "a b", "$shared/+"] {
        assert!(TopicFilter::parse(filter).is_ok(), "{filter:?}");
    }
    for filter in ["", "a#", "#a", "##", "#/", "#/a", "a/#/b", "a+", "+a", "++", "a/b+/c", "+#", "a\0", "a/\0/#"] {
        assert!(TopicFilter::parse(filter).is_err(), "{filter:?}");
        assert!(check_filter(filter).is_err(), "{filter:?}");
    }
}

#[test]
fn a_filter_knows_its_levels_and_wildcards() {
    let filter = TopicFilter::parse("/a//+/#").unwrap();
    assert_eq!(filter.levels().collect::<Vec<_>>(), ["", "a", "", "+", "#"]);
    assert!(filter.has_wildcard());
    assert!(!TopicFilter::parse("a/b").unwrap().has_wildcard());
}

#[test]
fn shared_filters_come_apart() {
    let shared = SharedFilter::parse("$share/group/a/+/#").unwrap().unwrap();
    assert_eq!((&*shared.group, shared.filter.as_str()), ("group", "a/+/#"));
    let empty_level = SharedFilter::parse("$share/g//a").unwrap().unwrap();
    assert_eq!(empty_level.filter.as_str(), "/a");
    for plain in ["a", "$share", "$shared/g/a", "a/$share/g/b", "$SHARE/g/a"] {
        assert_eq!(SharedFilter::parse(plain), Ok(None), "{plain:?}");
    }
    for wrong in
        ["$share/", "$share/g", "$share//a", "$share/g/", "$share/g+/a", "$share/#/a", "$share/g\0/a", "$share/g/a#"]
    {
        assert!(SharedFilter::parse(wrong).is_err(), "{wrong:?}");
    }
    assert!(TopicFilter::parse("$share/g/a").is_err());
}

#[test]
fn client_ids_are_bounded_and_not_empty() {
    assert!(ClientId::parse("c", 1).is_ok());
    assert!(ClientId::parse("cc", 1).is_err());
    assert!(ClientId::parse("", 10).is_err());
    assert!(ClientId::parse("a\0", 10).is_err());
    assert!(ClientId::parse("a/+#ü", 10).is_ok());
}
