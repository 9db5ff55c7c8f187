//! What a node's ledger of many sessions costs in time and memory: `cargo bench --bench ledger`.
//!
//! Sessions are built from encoded records, as a start does it: claim and set of each, then what a few reconnects and some
//! QoS 2 traffic leave behind. Encoding is not timed. One partition holds them all, which no installation would do; a
//! ledger of fewer is never slower.

use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::ledger::ids::{Epoch, Incarnation, Nonce, Place};
use millrace::ledger::record::{self, ClientKey, Slot, key};
use millrace::ledger::rules::Rules;
use millrace::ledger::sessions::Sessions;
use millrace::ledger::state::{Inbound, Life, Part, Position, SessionState, SubscriptionState};
use millrace::mqtt::packet::SubscribeOptions;
use millrace::mqtt::{PacketId, QoS, TopicFilter};

/// Fewer where nothing is measured anyway.
const SESSIONS: u32 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
/// Encoded ahead of the clock.
const CHUNK: u32 = 10_000;
const NODES: u32 = 3;

/// A kind of session.
struct Shape {
    name: &'static str,
    filter: fn(u32) -> String,
    /// Partitions that the filter touches.
    partitions: u32,
    life: Life,
}

/// One shape in each process: what an allocator has once got from the system it keeps.
fn main() {
    let shapes = [
        Shape { name: "connected, an exact filter", filter: exact, partitions: 1, life: Life::Connected },
        Shape {
            name: "disconnected for a while, an exact filter",
            filter: exact,
            partitions: 1,
            life: Life::Disconnected { since_ms: 1_700_000_000_000 },
        },
        Shape {
            name: "connected, `vehicles/{id}/#`, 48 partitions",
            filter: wild,
            partitions: 48,
            life: Life::Connected,
        },
    ];
    let chosen = std::env::args().nth(1).and_then(|text| text.parse::<usize>().ok());
    if let Some(shape) = chosen.and_then(|index| shapes.get(index)) {
        return measure(shape);
    }
    println!("{SESSIONS} sessions with one subscription each, in the order of their names, then each at random\n");
    println!("| what | CPU s | bytes a session, asked for | bytes a session, resident |\n|---|---|---|---|");
    let program = std::env::current_exe().expect("a program knows where it is");
    for index in 0..shapes.len() {
        let status = Command::new(&program).arg(index.to_string()).status().expect("it can be started again");
        assert!(status.success());
    }
}

fn exact(n: u32) -> String {
    format!("vehicles/{n:07}/commands")
}

fn wild(n: u32) -> String {
    format!("vehicles/{n:07}/#")
}

fn measure(shape: &Shape) {
    let resident_before = resident_bytes();
    let (mut replay, mut built) = (Duration::ZERO, None);
    let used = allocation_counter::measure(|| {
        let mut sessions = Sessions::new(0, Rules::ALL);
        let mut offset = 0;
        for chunk in 0..SESSIONS / CHUNK {
            let numbers = chunk * CHUNK..(chunk + 1) * CHUNK;
            let records: Vec<_> = numbers.flat_map(|n| claim_and_set(n, shape)).collect();
            replay += timed(&mut sessions, &mut offset, &records);
        }
        built = Some((sessions, offset));
    });
    let resident = resident_bytes().saturating_sub(resident_before);
    let Some((mut sessions, mut offset)) = built else { return };
    assert_eq!(sessions.len(), SESSIONS as usize);
    println!(
        "| {} | {:.2} | {} | {} |",
        shape.name,
        replay.as_secs_f64(),
        per_session(u64::try_from(used.bytes_current).unwrap_or(0)),
        per_session(resident)
    );
    let mut churn = Duration::ZERO;
    for chunk in 0..SESSIONS / CHUNK {
        let records: Vec<_> = (0..CHUNK).flat_map(|n| parts(scatter(chunk * CHUNK + n), shape)).collect();
        churn += timed(&mut sessions, &mut offset, &records);
    }
    let resident = resident_bytes().saturating_sub(resident_before);
    println!(
        "| … then position and QoS 2 of each, at random | {:.2} | | {} |",
        churn.as_secs_f64(),
        per_session(resident)
    );
    let asked = cpu_time();
    let due = sessions.absent(i64::MAX, &|node| (node == incarnation(0)).then_some(i64::MIN)).count();
    let litter = sessions.litter(&|node| node == incarnation(0)).count();
    println!("| … which are absent: {due}; keys to remove: {litter} | {:.2} | | |", since(asked));
    let asked = cpu_time();
    for n in 0..SESSIONS {
        assert!(sessions.inherited(&client(scatter(n))).is_some());
    }
    println!("| … what a claim of each would inherit, at random | {:.2} | | |", since(asked));
}

fn since(started: Duration) -> f64 {
    cpu_time().saturating_sub(started).as_secs_f64()
}

type Record = (Vec<u8>, Vec<u8>);

fn timed(sessions: &mut Sessions, offset: &mut i64, records: &[Record]) -> Duration {
    let started = cpu_time();
    for (key, value) in records {
        sessions.apply(*offset, 1_700_000_000_000, key, Some(value));
        *offset += 1;
    }
    cpu_time().saturating_sub(started)
}

/// What this thread has used of a processor: others may be busy on the same machine. Where nobody tells, what passed.
fn cpu_time() -> Duration {
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanoseconds = told.as_ref().and_then(|text| text.split(' ').next()).and_then(|text| text.parse().ok());
    nanoseconds.map_or_else(|| clock::now().duration_since(*START), Duration::from_nanos)
}

static START: LazyLock<Instant> = LazyLock::new(clock::now);

fn client(n: u32) -> ClientKey {
    ClientKey::new("", &format!("vehicle-{n:07}"))
}

/// Looks random, as nonces are.
fn nonce(n: u32) -> Nonce {
    let half = u64::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(half.to_be_bytes().into_iter().chain(half.to_le_bytes())) {
        *place = byte;
    }
    Nonce(bytes)
}

fn incarnation(n: u32) -> Incarnation {
    Incarnation(nonce(n % NODES).0)
}

/// A number that looks random and visits all sessions.
fn scatter(n: u32) -> u32 {
    (n.wrapping_mul(2_654_435_761) >> 4) % SESSIONS
}

fn position(shape: &Shape, n: u32) -> Position {
    let home = n % 48;
    let places = (0..shape.partitions).map(|partition| (home + partition) % 48);
    let mut from: Vec<_> =
        places.map(|partition| (Place { topic: 0x1234_5678, partition }, 9_000_000 + i64::from(n))).collect();
    from.sort_unstable();
    Position { following: true, from, in_flight: Vec::new() }
}

fn claim_and_set(n: u32, shape: &Shape) -> [Record; 2] {
    let (client, node) = (client(n), incarnation(n));
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    let filter = TopicFilter::parse(&(shape.filter)(n)).expect("a legal filter");
    let state = SessionState {
        expiry_s: 86_400,
        identity: format!("vehicle-{n:07}").into(),
        life: shape.life,
        subscriptions: vec![SubscriptionState { filter, options, id: None, starts: Vec::new() }],
        position: position(shape, n),
        ..SessionState::default()
    };
    let epoch = Epoch { generation: 0, offset: i64::from(n) * 2 };
    [
        (key(&client, nonce(n), Slot::Claim), record::claim(node)),
        (key(&client, nonce(n), Slot::Set), record::set(epoch, node, 1, &state)),
    ]
}

fn parts(n: u32, shape: &Shape) -> [Record; 2] {
    let client = client(n);
    let inbound = Inbound { high: 9, held: PacketId::new(9).into_iter().collect(), ..Inbound::default() };
    [(2, Part::Position(position(shape, n))), (3, Part::Inbound(inbound))]
        .map(|(version, part)| (key(&client, nonce(n), Slot::Part(part.kind())), record::part(version, &part)))
}

fn per_session(bytes: u64) -> u64 {
    bytes / u64::from(SESSIONS)
}

/// What the process holds of memory, 0 where nobody tells.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}
