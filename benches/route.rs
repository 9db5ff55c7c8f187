//! What routing and translating one message cost: `cargo bench --bench route`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use millrace::message::{Content, Decoded, Header, Stamp, decode, encode};
use millrace::mqtt::packet::PublishProperties;
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{QoS, TopicFilter};
use millrace::route::mapping::{Mapping, RuleSpec};
use millrace::route::partition::{murmur2, partition_of};
use millrace::route::trie::Trie;

const FILTERS: u32 = 1_000_000;

/// The text of the filter or topic of this number.
type Text = fn(u32) -> String;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a legal filter")
}

fn count(trie: &Trie<u32, u64>, topic: &str) -> u32 {
    let mut found = 0;
    trie.matches(black_box(topic), |_, _| found += 1);
    found
}

/// A trie of [`FILTERS`] filters, its size printed. The filters' own texts are counted too.
fn build(name: &str, text: impl Fn(u32) -> String) -> Trie<u32, u64> {
    let mut trie = None;
    let used = allocation_counter::measure(|| {
        let mut building = Trie::with_seed(7);
        for n in 0..FILTERS {
            building.insert(&filter(&text(n)), n, 0);
        }
        trie = Some(building);
    });
    let bytes = u64::try_from(used.bytes_current).unwrap_or(0) / u64::from(FILTERS);
    println!("{name}: {bytes} bytes per filter and subscriber");
    trie.expect("it was built")
}

/// A number that looks random and visits all filters: caches must not help more than in life.
fn scatter(n: u32) -> u32 {
    (n.wrapping_mul(2_654_435_761) >> 4) % FILTERS
}

fn tries(c: &mut Criterion) {
    let shapes: [(&str, Text); 3] = [
        ("exact vehicles/{id}/commands", |n| format!("vehicles/{n:07}/commands")),
        ("wildcard vehicles/{id}/#", |n| format!("vehicles/{n:07}/#")),
        ("wildcard fleet/+/vehicle/{id}", |n| format!("fleet/+/vehicle/{n:07}")),
    ];
    for ((name, text), topic) in shapes.into_iter().zip([
        |n| format!("vehicles/{n:07}/commands"),
        |n| format!("vehicles/{n:07}/speed"),
        |n| format!("fleet/7/vehicle/{n:07}"),
    ]) {
        let trie = build(name, text);
        // Many topics at random: nothing is in the caches. Few: all is.
        for (heat, topics) in [("cold", 1_000_000), ("warm", 1_000)] {
            let topics: Vec<_> = (0..topics).map(|n| topic(scatter(n))).collect();
            let mut at = topics.iter().cycle();
            c.bench_function(&format!("match 1 of 1M, {heat}, {name}"), |b| {
                b.iter(|| count(&trie, at.next().expect("a cycle")));
            });
        }
        let none: Vec<_> = (0..1_000).map(|n| format!("other/{n}/speed")).collect();
        let mut at = none.iter().cycle();
        c.bench_function(&format!("match 0 of 1M, {name}"), |b| {
            b.iter(|| count(&trie, at.next().expect("a cycle")));
        });
        let mut trie = trie;
        let filters: Vec<_> = (0..100_000).map(|n| (filter(&text(scatter(n))), scatter(n))).collect();
        let mut at = filters.iter().cycle();
        c.bench_function(&format!("remove and insert 1 of 1M, {name}"), |b| {
            b.iter(|| {
                let (filter, subscriber) = at.next().expect("a cycle");
                assert!(trie.remove(filter, *subscriber).is_some());
                trie.insert(filter, *subscriber, 0)
            });
        });
    }
}

fn fan_out(c: &mut Criterion) {
    let (mut trie, all) = (Trie::default(), filter("news/#"));
    for n in 0..100_000 {
        trie.insert(&all, n, 0);
    }
    c.bench_function("match 100k subscribers of one filter", |b| b.iter(|| count(&trie, "news/today")));
    c.bench_function("remove and insert one of 100k subscribers of one filter", |b| {
        b.iter(|| {
            trie.remove(&all, 50_000);
            trie.insert(&all, 50_000, 0)
        });
    });
}

fn mappings(c: &mut Criterion) {
    let rules: Vec<_> = (0..9)
        .map(|n| RuleSpec { filter: format!("site{n}/+/state"), kafka_topic: format!("site{n}"), key: None })
        .chain([RuleSpec {
            filter: "cars/{vin}/{path#}".to_owned(),
            kafka_topic: "cars".to_owned(),
            key: Some("{vin}/{path#}".to_owned()),
        }])
        .collect();
    let mapping = Mapping::new(&rules, "mqtt.messages").expect("legal rules");
    for (name, topic) in [
        ("the ninth of 10 rules", "site8/machine-17/state"),
        ("no rule of 10", "trains/17/speed"),
        ("a key template, the last of 10 rules", "cars/WVWZZZ1JZXW000001/engine/speed"),
    ] {
        c.bench_function(&format!("to_kafka, {name}"), |b| b.iter(|| mapping.to_kafka(black_box(topic))));
        let (to, key) = mapping.to_kafka(topic);
        c.bench_function(&format!("to_mqtt, {name}"), |b| b.iter(|| mapping.to_mqtt(to, black_box(&key))));
    }
    for text in ["cars/+/engine/#", "#", "site1/7/state"] {
        let filter = filter(text);
        c.bench_function(&format!("touched_by {text}, 10 rules"), |b| {
            b.iter(|| mapping.touched_by(black_box(&filter)));
        });
    }
    let key = b"vehicles/0000017/commands";
    c.bench_function("murmur2 of 25 bytes", |b| b.iter(|| murmur2(black_box(key))));
    c.bench_function("partition of 25 bytes", |b| b.iter(|| partition_of(black_box(key), black_box(48))));
}

fn messages(c: &mut Criterion) {
    let pairs = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("unit", "km/h")];
    let rich = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_s: Some(3_600),
        content_type: Some("application/json"),
        user_properties: UserProperties::Pairs(&pairs),
        ..PublishProperties::default()
    };
    let plain = PublishProperties::default();
    let payload = [b'x'; 200];
    let stamp = Stamp { wall_ms: 1_700_000_000_000, publisher: Some("vehicle-0000017"), token: None };
    for (name, properties) in [("plain", &plain), ("rich", &rich)] {
        let content = Content { qos: QoS::AtLeastOnce, retain: false, properties, payload: &payload };
        c.bench_function(&format!("encode a {name} publish"), |b| {
            b.iter(|| encode(black_box(content), stamp, b"key", |record| record.headers.len()));
        });
        encode(content, stamp, b"key", |record| {
            let read = |headers: &[Header<'_>]| decode("vehicles/17/state", record.value, headers.iter().copied());
            c.bench_function(&format!("decode a {name} record"), |b| b.iter(|| read(black_box(record.headers))));
            let Decoded::Message { message, .. } = read(record.headers) else { return };
            println!("a {name} message takes {} bytes, its payload {}", message.heap_bytes(), payload.len());
            c.bench_function(&format!("topic and properties of a {name} message"), |b| {
                b.iter(|| (black_box(&message).topic().len(), message.properties(stamp.wall_ms)));
            });
            c.bench_function(&format!("clone and drop a {name} message"), |b| {
                b.iter_batched_ref(|| (), |()| black_box(&message).clone(), BatchSize::SmallInput);
            });
        });
    }
}

criterion_group!(benches, tries, fan_out, mappings, messages);
criterion_main!(benches);
