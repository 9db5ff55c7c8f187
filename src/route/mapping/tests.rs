use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn rule(filter: &str, kafka_topic: &str, key: Option<&str>) -> RuleSpec {
    RuleSpec { filter: filter.to_owned(), kafka_topic: kafka_topic.to_owned(), key: key.map(str::to_owned) }
}

fn mapping(rules: &[(&str, &str, Option<&str>)]) -> Mapping {
    let rules: Vec<_> = rules.iter().map(|(f, t, k)| rule(f, t, *k)).collect();
    Mapping::new(&rules, "default").unwrap()
}

fn refusal(rules: &[(&str, &str, Option<&str>)]) -> String {
    let rules: Vec<_> = rules.iter().map(|(f, t, k)| rule(f, t, *k)).collect();
    Mapping::new(&rules, "default").unwrap_err().to_string()
}

fn to_kafka(mapping: &Mapping, topic: &str) -> (String, String) {
    let (to, key) = mapping.to_kafka(topic);
    (mapping.kafka_topics()[usize::from(to.0)].clone(), String::from_utf8(key.into_owned()).unwrap())
}

fn touched(mapping: &Mapping, filter: &str) -> Vec<String> {
    let touched = mapping.touched_by(&TopicFilter::parse(filter).unwrap());
    touched.into_iter().map(|t| mapping.kafka_topics()[usize::from(t.topic.0)].clone()).collect()
}

/// The example that everybody knows from the issue.
fn cars() -> Mapping {
    mapping(&[("cars/speed/+", "kafkaTopic1", None), ("cars/#", "kafkaTopic2", None)])
}

#[test]
fn the_first_rule_that_matches_decides_where_a_message_goes() {
    for (topic, kafka_topic) in [
        ("cars/speed/1", "kafkaTopic1"),
        ("cars/location/1", "kafkaTopic2"),
        ("cars/speed/1/2", "kafkaTopic2"),
        ("trains/speed/1", "default"),
    ] {
        assert_eq!(to_kafka(&cars(), topic), (kafka_topic.to_owned(), topic.to_owned()));
    }
}

#[test]
fn a_subscriber_makes_the_node_read_only_what_its_filter_can_touch() {
    assert_eq!(touched(&cars(), "cars/speed/+"), ["kafkaTopic1"]);
    assert_eq!(touched(&cars(), "cars/#"), ["kafkaTopic1", "kafkaTopic2"]);
    assert_eq!(touched(&cars(), "trains/#"), ["default"]);
    assert_eq!(touched(&cars(), "#"), ["default", "kafkaTopic1", "kafkaTopic2"]);
    assert_eq!(touched(&cars(), "+/speed/1"), ["default", "kafkaTopic1"]);
    assert_eq!(touched(&cars(), "+"), ["default", "kafkaTopic2"]);
    assert_eq!(touched(&cars(), "$SYS/#"), ["default"]);
}

#[test]
fn a_filter_without_wildcards_touches_one_key() {
    let cars = mapping(&[("cars/{vin}/speed", "speed", Some("{vin}"))]);
    let only = |filter| cars.touched_by(&TopicFilter::parse(filter).unwrap());
    assert_eq!(only("cars/7/speed"), [Touch { topic: MappedTopic(1), key: Some(b"7".to_vec()) }]);
    assert_eq!(only("cars/7"), [Touch { topic: MappedTopic(0), key: Some(b"cars/7".to_vec()) }]);
    assert_eq!(only("cars/+/speed"), [Touch { topic: MappedTopic(1), key: None }]);
}

#[test]
fn rules_hidden_by_earlier_ones_do_not_count() {
    let m = mapping(&[("a/+", "k1", None), ("a/b", "k2", None), ("+/b", "k3", None)][..1]);
    assert_eq!(touched(&m, "a/+"), ["k1"]);
    let m = mapping(&[("a/+", "k1", None), ("+/b", "k3", None)]);
    assert_eq!(touched(&m, "a/#"), ["default", "k1"]);
    assert_eq!(touched(&m, "+/b"), ["k1", "k3"]);
    assert_eq!(touched(&m, "c/+"), ["default", "k3"]);
}

#[test]
fn a_key_template_keeps_the_named_levels_and_gives_the_topic_back() {
    let m = mapping(&[
        ("cars/{vin}/speed", "speed", Some("{vin}")),
        ("cars/{vin}/{path#}", "cars", Some("car-{vin}-x/all/{path#}/end")),
        ("plants/{plant}/+", "plants", None),
        ("all/{rest#}", "rest", Some("{rest#}")),
        ("fix", "fixed", Some("constant")),
    ]);
    for (topic, kafka_topic, key) in [
        ("cars/7/speed", "speed", "7"),
        ("cars//speed", "speed", ""),
        ("cars/7/speed/", "cars", "car-7-x/all/speed//end"),
        ("cars/7/", "cars", "car-7-x/all//end"),
        ("cars/7", "default", "cars/7"),
        ("plants/3/x", "plants", "plants/3/x"),
        ("all/a/b/c", "rest", "a/b/c"),
        ("all/", "rest", ""),
        ("all", "default", "all"),
        ("fix", "fixed", "constant"),
    ] {
        assert_eq!(to_kafka(&m, topic), (kafka_topic.to_owned(), key.to_owned()));
        let (to, key) = m.to_kafka(topic);
        assert_eq!(m.to_mqtt(to, &key).as_deref(), Some(topic));
    }
}

#[test]
fn a_record_stands_for_a_topic_only_where_a_publish_of_it_would_go() {
    let m = mapping(&[
        ("cars/hidden/+", "cars", None),
        ("cars/{vin}/speed", "speed", Some("{vin}")),
        ("cars/#", "cars", None),
        ("more/{a}/{rest#}", "more", Some("{a}/x-{rest#}-y/z")),
    ]);
    let topic = |kafka_topic: &str, key: &'static [u8]| {
        let number = m.kafka_topics().iter().position(|t| t == kafka_topic).unwrap();
        m.to_mqtt(MappedTopic(u16::try_from(number).unwrap()), key)
    };
    assert_eq!(topic("speed", b"1").as_deref(), Some("cars/1/speed"));
    assert_eq!(topic("speed", b""), Some("cars//speed".into()), "an empty level is a level");
    assert_eq!(topic("speed", b"1/2"), None, "one level holds no slash");
    assert_eq!(topic("speed", b"hidden"), None, "an earlier rule takes a publish of it");
    assert_eq!(topic("speed", b"+"), None, "a wildcard is no topic");
    assert_eq!(topic("speed", b"\0"), None);
    assert_eq!(topic("speed", b"\xff"), None, "not UTF-8");
    assert_eq!(topic("cars", b"cars/1/place").as_deref(), Some("cars/1/place"));
    assert_eq!(topic("cars", b"cars/1/speed"), None, "a publish of it goes to `speed`");
    assert_eq!(topic("cars", b"trains/1"), None, "a publish of it goes to the default");
    assert_eq!(topic("cars", b""), None);
    assert_eq!(topic("default", b"trains/1").as_deref(), Some("trains/1"));
    assert_eq!(topic("default", b"cars/1"), None);
    assert_eq!(topic("default", b"$SYS/x").as_deref(), Some("$SYS/x"));
    assert_eq!(topic("more", b"1/x-2-y/z").as_deref(), Some("more/1/2"));
    assert_eq!(topic("more", b"1/x-2/3-y/z").as_deref(), Some("more/1/2/3"));
    assert_eq!(topic("more", b"1/x-y/z"), None, "prefix and suffix must not overlap");
    assert_eq!(topic("more", b"1/z"), None);
}

#[test]
fn borrowed_keys_cost_no_allocation() {
    let m = cars();
    let used = allocation_counter::measure(|| {
        let (to, key) = m.to_kafka("cars/speed/1");
        assert!(m.to_mqtt(to, &key).is_some());
    });
    assert_eq!(used.count_total, 0);
}

#[test]
fn dollar_topics_match_only_rules_that_name_their_first_level() {
    let m = mapping(&[("$SYS/#", "sys", None), ("+/x", "x", None), ("{all#}", "all", Some("k/{all#}"))]);
    assert_eq!(to_kafka(&m, "$SYS/x").0, "sys");
    assert_eq!(to_kafka(&m, "$other/x").0, "default");
    assert_eq!(to_kafka(&m, "a/x").0, "x");
    assert_eq!(to_kafka(&m, "/").0, "all");
    assert_eq!(touched(&m, "#"), ["x", "all"]);
    assert_eq!(touched(&m, "$SYS/+"), ["sys"]);
}

#[test]
fn an_empty_topic_is_no_reason_to_read() {
    let m = mapping(&[("/#", "slash", None)]);
    assert_eq!(touched(&m, "+"), ["default"]);
    assert_eq!(touched(&m, "#"), ["default", "slash"]);
    assert_eq!(touched(&m, "+/+"), ["default", "slash"]);
}

#[test]
fn what_cannot_work_is_refused_with_a_reason() {
    for (rules, why) in [
        (&[("a/+", "k", Some("{x}"))][..], "wildcards without a name"),
        (&[("a/{x}/#", "k", Some("{x}"))], "wildcards without a name"),
        (&[("a/{x}/{y}", "k", Some("{x}"))], "leaves out `{y}`"),
        (&[("a/{x}/{y}", "k", Some("{x}-{y}"))], "no `/` between them"),
        (&[("a/{x}", "k", Some("{x}/{x}"))], "twice"),
        (&[("a/{x}", "k", Some("{z}"))], "does not name"),
        (&[("a/{x#}", "k", Some("{x}"))], "it names: {x#}"),
        (&[("a/{x}", "k", Some("{x"))], "without a `}`"),
        (&[("a/{x}", "k", Some("x}"))], "without a `{`"),
        (&[("a/{x}", "k", Some(""))], "empty"),
        (&[("a/{x}/{x#}", "k", None)], "used twice"),
        (&[("a/{x#}/b", "k", None)], "must be last"),
        (&[("a/#/b", "k", None)], "must be last"),
        (&[("a/b+", "k", None)], "mixes text with a wildcard"),
        (&[("a/{b}c", "k", None)], "not a whole level"),
        (&[("a/{}", "k", None)], "letters, digits"),
        (&[("", "k", None)], "empty"),
        (&[("a", "k/1", None)], "not a legal kafka topic"),
        (&[("a", "..", None)], "not a legal kafka topic"),
        (&[("a/{x}", "default", Some("{x}"))], "keyed by whole MQTT topics"),
        (&[("a/{x}", "k", Some("{x}")), ("b/{y}", "k", Some("{y}"))], "rule 2: it and rule 1"),
        (&[("a/{x}", "k", Some("p-{x}")), ("b/{y}", "k", Some("{y}-s"))], "rule 2: it and rule 1"),
        (&[("a/{x#}", "k", Some("b/{x#}")), ("b/#", "k", None)], "rule 2: it and rule 1"),
        (&[("cars/#", "k", None), ("cars/speed/+", "k2", None)], "rule 2: `cars/speed/+` never gets a topic"),
        (&[("+", "k", None), ("+/{r#}", "k2", None), ("#", "k3", None)], "rule 3: `#` never gets a topic"),
    ] {
        let error = refusal(rules);
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(Mapping::new(&[], "a b").unwrap_err().rule, 0);
}

#[test]
fn rules_may_share_a_kafka_topic_where_their_keys_always_differ() {
    let m = mapping(&[
        ("a/{x}", "k", Some("a-{x}")),
        ("b/{x}", "k", Some("b-{x}")),
        ("c/{x}/{y}", "k", Some("{x}/{y}")),
        ("d/e/#", "d", None),
        ("d/{y}", "d", Some("d/{y}")),
        ("e/{z#}", "d", Some("x/{z#}")),
    ]);
    for topic in ["a/1", "b/1", "c/1/2", "d/e/1", "d/1", "e/1/2"] {
        let (to, key) = m.to_kafka(topic);
        assert_eq!(m.to_mqtt(to, &key).as_deref(), Some(topic));
    }
}

#[test]
fn many_overlapping_rules_are_answered_in_time_and_never_with_too_little() {
    let rules: Vec<_> = (0..24)
        .map(|n| {
            let levels: Vec<_> = (0..24).map(|level| if level == n { "x" } else { "+" }).collect();
            rule(&levels.join("/"), &format!("k{n}"), None)
        })
        .collect();
    let mapping = Mapping::new(&rules, "default").unwrap();
    assert_eq!(touched(&mapping, "#").len(), 25);
    let last = vec!["+"; 23].join("/") + "/x";
    assert!(touched(&mapping, &last).contains(&"k23".to_owned()));
}

/// Texts that rules and filters use, and with `c` and `$z` two that they do not.
const TOPIC_LEVELS: [&str; 6] = ["", "a", "b", "$x", "c", "$z"];

/// All topics of one to four levels.
fn all_topics() -> Vec<String> {
    let mut topics: Vec<String> = TOPIC_LEVELS.map(str::to_owned).to_vec();
    let mut from = 0;
    for _ in 1..4 {
        let to = topics.len();
        for n in from..to {
            topics.extend(TOPIC_LEVELS.map(|level| format!("{}/{level}", topics[n])));
        }
        from = to;
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

fn filter_text() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => prop::sample::select(vec!["", "a", "b", "$x"]), 2 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(mut levels, multi)| {
            if levels.is_empty() || (multi && levels.len() < 4) {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |text| !text.is_empty())
}

/// A filter with all wildcards named, and a template with a literal and the names in some order.
fn named(filter: &str, order: &[usize], text: &str) -> (String, String) {
    let mut placeholders = Vec::new();
    let levels = filter.split('/').zip(0..).map(|(level, n)| {
        let placeholder = match level {
            "+" => format!("{{n{n}}}"),
            "#" => format!("{{n{n}#}}"),
            _ => return level.to_owned(),
        };
        placeholders.push(placeholder.clone());
        placeholder
    });
    let filter = levels.collect::<Vec<_>>().join("/");
    let mut parts = vec![text.to_owned()];
    for (placeholder, at) in placeholders.into_iter().zip(order) {
        parts.insert(at % (parts.len() + 1), format!("{text}{placeholder}"));
    }
    (filter, parts.join("/"))
}

fn rules() -> impl Strategy<Value = Vec<RuleSpec>> {
    let one = (filter_text(), 0..4_u8, prop::collection::vec(0..4_usize, 4), prop::sample::select(vec!["", "t", "-"]));
    prop::collection::vec((one, any::<bool>()), 0..6).prop_map(|rules| {
        // Each rule that a mapping would refuse after those before it is left out.
        let mut legal: Vec<RuleSpec> = Vec::new();
        for ((filter, topic, order, text), template) in rules {
            let topic = format!("k{topic}");
            legal.push(if template {
                let (filter, key) = named(&filter, &order, text);
                rule(&filter, &topic, Some(&key))
            } else {
                rule(&filter, &topic, None)
            });
            if Mapping::new(&legal, "default").is_err() {
                legal.pop();
            }
        }
        legal
    })
}

fn matches(filter: &str, topic: &str) -> bool {
    Pattern::parse(filter).unwrap().matches(topic)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Sound and exact: on all topics of a small alphabet, the kafka topics named are those that are needed.
    #[test]
    fn touched_by_names_exactly_the_kafka_topics_of_matching_topics(rules in rules(), filter in filter_text()) {
        let mapping = Mapping::new(&rules, "default").unwrap();
        let parsed = TopicFilter::parse(&filter).unwrap();
        let touched: BTreeSet<_> = mapping.touched_by(&parsed).into_iter().map(|t| t.topic).collect();
        let needed: BTreeSet<_> =
            all_topics().iter().filter(|t| matches(&filter, t)).map(|t| mapping.to_kafka(t).0).collect();
        prop_assert_eq!(touched, needed);
    }

    #[test]
    fn every_topic_comes_back_from_its_record(rules in rules()) {
        let mapping = Mapping::new(&rules, "default").unwrap();
        let mut keys = BTreeSet::new();
        for topic in all_topics() {
            let (to, key) = mapping.to_kafka(&topic);
            let back = mapping.to_mqtt(to, &key);
            prop_assert_eq!(back.as_deref(), Some(topic.as_str()));
            prop_assert!(keys.insert((to, key.into_owned())), "two topics with one key");
        }
    }

    /// What a foreign program writes is delivered as a topic only if a publish of it goes to the same place.
    #[test]
    fn a_record_that_stands_for_a_topic_is_where_a_publish_of_it_goes(
        rules in rules(),
        key in prop::collection::vec(prop::sample::select(vec!["", "a", "b", "t", "ta", "-", "+", "$x"]), 1..5),
    ) {
        let (mapping, key) = (Mapping::new(&rules, "default").unwrap(), key.join("/"));
        for number in 0..mapping.kafka_topics().len() {
            let to = MappedTopic(u16::try_from(number).unwrap());
            if let Some(topic) = mapping.to_mqtt(to, key.as_bytes()) {
                prop_assert_eq!(mapping.to_kafka(&topic), (to, Cow::Borrowed(key.as_bytes())));
            }
        }
    }

    #[test]
    fn a_pattern_matches_what_the_words_of_the_standard_say(filter in filter_text()) {
        let mut trie = crate::route::trie::Trie::<u8, ()>::default();
        trie.insert(&TopicFilter::parse(&filter).unwrap(), 0, ());
        for topic in all_topics() {
            let mut found = false;
            trie.matches(&topic, |_, ()| found = true);
            prop_assert_eq!(matches(&filter, &topic), found, "{}", topic);
        }
    }
}
