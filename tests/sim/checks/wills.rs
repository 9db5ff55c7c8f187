//! Wills: none after a DISCONNECT, one after every other end of a connection that had been accepted, never two.

use std::collections::BTreeMap;

use super::Findings;
use crate::history::{Asked, End, Entry, Event, History, Link, Name};
use crate::log_view::LogView;
use crate::plan::Plan;

/// A client that is back so soon may overtake its own DISCONNECT.
const OVERTAKES_MS: u64 = 3_000;
/// A node that ends within this time may not have seen what a client sent last.
const UNSEEN_MS: u64 = 40_000;

/// A will is published within this time after it is due, whatever died meanwhile.
const LATE_MS: u64 = 70_000;

/// When a node ended, and whether in order, so that it fires no wills.
struct NodeEnd {
    node: usize,
    at_ms: u64,
    is_orderly: bool,
}

/// The life of one connection.
struct Life<'a> {
    asked: &'a Asked,
    is_accepted: bool,
    /// How, when, and whether its node stood still then.
    ended: Option<(End, u64, bool)>,
    /// When the client connected again.
    next_ms: Option<u64>,
    /// Its session was resumed, as far as the client knows: by the next CONNECT that was accepted, or by one before that.
    may_be_resumed: bool,
    is_over: bool,
}

pub(crate) fn check(plan: &Plan, history: &History, log: &LogView, findings: &mut Findings) {
    let (lives, node_ends) = lives(history);
    let places = log.places();
    for (link, life) in &lives {
        let name = Name::Will { client: link.client, connection: link.connection };
        let count = places.get(&name).map_or(0, Vec::len);
        let (least, most) = expected(life, &node_ends, plan.faults.refused_permille > 0);
        if !(least..=most).contains(&count) {
            let ended = life.ended.map(|(end, _, _)| end);
            let what = format!("{name} was published {count} times, not {least} to {most}; it ended with {ended:?}");
            findings.add("wills", what);
        }
        // The nodes' wall clocks say when it was published.
        let published_ms = places.get(&name).and_then(|places| places.first()).map(|written| written.at_ms);
        if let (Some(limit_ms), false) = (limit_ms(life), plan.trouble.clock_jumps)
            && published_ms.is_some_and(|at_ms| at_ms > limit_ms)
        {
            findings.add("wills", format!("{name} was published only when its client was long gone, or back again"));
        }
    }
}

/// The least and the most publishes of a connection's will.
fn expected(life: &Life<'_>, node_ends: &[NodeEnd], may_be_refused: bool) -> (usize, usize) {
    let Some(will) = &life.asked.will else { return (0, 0) };
    if !life.is_accepted {
        // The server may have accepted it all the same.
        return (0, 1);
    }
    let Some((end, at_ms, was_still)) = life.ended else { return (0, 0) };
    let is_back_within = |limit_ms: u64| life.next_ms.is_some_and(|next_ms| next_ms < at_ms + limit_ms);
    let mut its_ends = node_ends.iter().filter(|ended| {
        ended.node == life.asked.node && ended.at_ms + UNSEEN_MS >= at_ms && ended.at_ms <= at_ms + UNSEEN_MS
    });
    let node_ended = its_ends.clone().next().is_some();
    let node_drained = its_ends.any(|ended| ended.is_orderly);
    match end {
        End::Left if was_still || node_ended || is_back_within(OVERTAKES_MS) => (0, 1),
        End::Left => (0, 0),
        // Our own shutdown fires no wills.
        End::Closed(Some(0x8b)) => (0, 1),
        End::LeftWithWill | End::Cut | End::LeftOpen | End::Closed(_) | End::GaveUp => {
            let may_be_cancelled = will.delay_s > 0 && life.may_be_resumed;
            let least = usize::from(!may_be_cancelled && !node_drained && !may_be_refused);
            (least, 1)
        }
    }
}

fn of_client<'l, 'a>(lives: &'l mut BTreeMap<Link, Life<'a>>, client: usize) -> impl Iterator<Item = &'l mut Life<'a>> {
    let [from, to] = [0, u32::MAX].map(|connection| Link { client, connection });
    lives.range_mut(from..=to).map(|(_, life)| life)
}

/// When a will must have been published, in milliseconds of the run, if its client was away for so long.
fn limit_ms(life: &Life<'_>) -> Option<i64> {
    let will = life.asked.will.as_ref()?;
    let (_, ended_ms, _) = life.ended.filter(|_| life.is_accepted)?;
    let limit_ms = ended_ms + u64::from(will.delay_s) * 1_000 + LATE_MS;
    let is_away = life.next_ms.is_some_and(|next_ms| limit_ms < next_ms);
    if is_away { i64::try_from(limit_ms).ok() } else { None }
}

/// Every connection, and when which node ended in order.
fn lives(history: &History) -> (BTreeMap<Link, Life<'_>>, Vec<NodeEnd>) {
    let mut lives: BTreeMap<Link, Life<'_>> = BTreeMap::new();
    let mut node_ends = Vec::new();
    let mut still = std::collections::BTreeSet::new();
    for Entry { at_ms, event } in &history.entries {
        match event {
            Event::Connecting { link, asked } => {
                // A CONNECT with a clean start that is not answered need not have ended the session.
                for before in of_client(&mut lives, link.client).filter(|before| !before.is_over) {
                    before.next_ms = before.next_ms.or(Some(*at_ms));
                    before.may_be_resumed |= !asked.clean_start;
                }
                let life = Life {
                    asked,
                    is_accepted: false,
                    ended: None,
                    next_ms: None,
                    may_be_resumed: false,
                    is_over: false,
                };
                lives.insert(*link, life);
            }
            Event::Accepted { link, .. } => {
                of_client(&mut lives, link.client).for_each(|life| life.is_over = true);
                if let Some(life) = lives.get_mut(link) {
                    (life.is_accepted, life.is_over) = (true, false);
                }
            }
            Event::Ended { link, end } => {
                if let Some(life) = lives.get_mut(link) {
                    life.ended = Some((*end, *at_ms, still.contains(&life.asked.node)));
                }
            }
            Event::Node { node, what } => match *what {
                "held" => {
                    still.insert(*node);
                }
                "resumed" => {
                    still.remove(node);
                }
                "crashed" | "ended" | "drains" => {
                    still.remove(node);
                    node_ends.push(NodeEnd { node: *node, at_ms: *at_ms, is_orderly: *what != "crashed" });
                }
                _ => {}
            },
            _ => {}
        }
    }
    (lives, node_ends)
}

#[cfg(test)]
mod tests {
    use super::super::made::{asked, ended, found, history, log};
    use super::*;
    use crate::history::Will;
    use crate::plan::Features;

    /// What is wrong when a will of this delay was published so often after such an end; `after` follows.
    fn wrong(end: Option<End>, delay_s: u32, count: usize, after: Vec<Event>) -> usize {
        let will = Will { topic: "a".to_owned(), qos: 1, retain: false, delay_s };
        let (link, asked) = (Link { client: 1, connection: 0 }, Asked { will: Some(will), ..asked(true, 60) });
        let mut events = vec![Event::Connecting { link, asked }, Event::Accepted { link, session_present: false }];
        events.extend(end.map(|end| ended(1, 0, end)));
        events.extend(after);
        let name = Name::Will { client: 1, connection: 0 };
        let mut plan = Plan::draw(1, Features::ALL);
        plan.faults = millrace::journal::memory::FaultPlan::default();
        found(|f| check(&plan, &history(events), &log(&vec![("a", name); count]), f)).len()
    }

    #[test]
    fn a_will_that_is_missing_or_too_much_is_found() {
        assert_eq!([0, 1, 2].map(|count| wrong(Some(End::Cut), 0, count, vec![])), [1, 0, 1]);
        assert_eq!([0, 1].map(|count| wrong(Some(End::Left), 0, count, vec![])), [0, 1]);
        assert_eq!([0, 1].map(|count| wrong(Some(End::LeftWithWill), 0, count, vec![])), [1, 0]);
        assert_eq!([0, 1].map(|count| wrong(None, 0, count, vec![])), [0, 1], "it is still connected");
    }

    #[test]
    fn a_will_that_waits_may_be_cancelled_by_a_resumed_session_only() {
        let back = |clean_start| {
            vec![Event::Connecting { link: Link { client: 1, connection: 1 }, asked: asked(clean_start, 60) }]
        };
        assert_eq!([0, 1, 2].map(|count| wrong(Some(End::Cut), 5, count, back(false))), [0, 0, 1]);
        assert_eq!([0, 1].map(|count| wrong(Some(End::Cut), 5, count, back(true))), [1, 0]);
        assert_eq!([0, 1].map(|count| wrong(Some(End::Cut), 0, count, back(false))), [1, 0], "it does not wait");
        let twice = |first_is_accepted: bool| {
            let accepted = Event::Accepted { link: Link { client: 1, connection: 1 }, session_present: false };
            let second = Event::Connecting { link: Link { client: 1, connection: 2 }, asked: asked(false, 60) };
            let first = back(true).into_iter().chain(first_is_accepted.then_some(accepted));
            first.chain([second]).collect::<Vec<_>>()
        };
        assert_eq!(wrong(Some(End::Cut), 5, 0, twice(false)), 0, "the clean start may never have come");
        assert_eq!(wrong(Some(End::Cut), 5, 0, twice(true)), 1, "it ended the session");
    }

    #[test]
    fn a_node_that_dies_fires_them_and_one_that_leaves_need_not() {
        let node = |what| vec![Event::Node { node: 0, what }];
        assert_eq!([0, 1].map(|count| wrong(Some(End::Closed(None)), 0, count, node("crashed"))), [1, 0]);
        assert_eq!([0, 1].map(|count| wrong(Some(End::Closed(None)), 0, count, node("drains"))), [0, 0]);
    }
}
