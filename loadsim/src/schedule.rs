//! When each message is to be sent, decided before the run and independent of how the run goes.

use std::str::FromStr;

/// Events per second, exact to a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_1000_s: u64,
}

impl Rate {
    /// As it was given.
    #[expect(clippy::cast_precision_loss, reason = "parsing bounds it far below 2^52")]
    pub fn per_second(self) -> f64 {
        self.per_1000_s as f64 / 1000.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const PER_SECOND_MAX: f64 = 100_000_000.0;
        let per_second: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
        if !(0.001..=PER_SECOND_MAX).contains(&per_second) {
            return Err(format!("{text} per second is not between 0.001 and {PER_SECOND_MAX}"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        Ok(Self { per_1000_s: (per_second * 1000.0).round() as u64 })
    }
}

/// Event `n` is due `n / rate` after the start, or at the next tick after that.
///
/// Ticks make small bursts part of the plan. Otherwise they would come of waking up as late as is affordable, and the
/// lateness of this program would be measured as the broker's.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate: Rate,
    tick_ns: u64,
}

const NANOS_PER_1000_S: u128 = 1_000_000_000_000;

impl Schedule {
    /// Starts at `start_ns`, with a tick every `tick_ns`; 1 for none.
    pub fn new(start_ns: u64, rate: Rate, tick_ns: u64) -> Self {
        Self { start_ns, rate, tick_ns: tick_ns.max(1) }
    }

    /// When event `n`, counted from 0, is due.
    pub fn due_ns(&self, n: u64) -> u64 {
        let offset_ns = u128::from(n) * NANOS_PER_1000_S / u128::from(self.rate.per_1000_s);
        let offset_ns = u64::try_from(offset_ns).unwrap_or(u64::MAX);
        let at_tick_ns = offset_ns.checked_next_multiple_of(self.tick_ns).unwrap_or(u64::MAX);
        self.start_ns.saturating_add(at_tick_ns)
    }

    /// Events that are due at `now_ns` or before.
    pub fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed_ns) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let at_tick_ns = elapsed_ns - elapsed_ns % self.tick_ns;
        let scaled = (u128::from(at_tick_ns) + 1) * u128::from(self.rate.per_1000_s) - 1;
        u64::try_from(scaled / NANOS_PER_1000_S + 1).unwrap_or(u64::MAX)
    }
}

/// How many of the events `0..count`, dealt out in turn to `members`, fall to `member`.
pub fn share_of(count: u64, member: u64, members: u64) -> u64 {
    count.saturating_sub(member).div_ceil(members.max(1))
}

/// The turns of some of the members, in order: event `n` belongs to member `n % members`.
#[derive(Debug)]
pub struct Turns {
    /// Ascending.
    own: Vec<u64>,
    members: u64,
    round: u64,
    next: usize,
}

impl Turns {
    /// The turns of the members `own`, ascending, of `members` altogether.
    pub fn new(own: Vec<u64>, members: u64) -> Self {
        Self { own, members, round: 0, next: 0 }
    }

    /// The next event and the index within `own` of the member whose turn it is.
    pub fn peek(&self) -> Option<(u64, usize)> {
        let member = self.own.get(self.next)?;
        Some((self.round * self.members + member, self.next))
    }

    /// Moves on to the next event.
    pub fn advance(&mut self) {
        self.next += 1;
        if self.next >= self.own.len() {
            self.next = 0;
            self.round += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_that_makes_no_sense_is_refused() {
        for text in ["0", "-1", "NaN", "inf", "1e99", "many", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_event_is_counted_from_the_nanosecond_in_which_it_is_due() {
        for text in ["0.001", "0.5", "3", "7", "999.999", "5000", "123456.789"] {
            let schedule = Schedule::new(1_000, rate(text), 1);
            assert_eq!(schedule.due_count(999), 0, "{text}");
            for n in [0, 1, 2, 3, 10, 1_001, 99_999] {
                let due_ns = schedule.due_ns(n);
                assert_eq!(schedule.due_count(due_ns), n + 1, "{text} {n}");
                assert!(n == 0 || schedule.due_count(due_ns - 1) == n, "{text} {n}");
            }
        }
    }

    #[test]
    fn ticks_gather_what_is_due_between_them_and_put_nothing_off_further() {
        let schedule = Schedule::new(7, rate("3000"), 1_000_000);
        let due: Vec<_> = (0..7).map(|n| schedule.due_ns(n) - 7).collect();
        assert_eq!(due, [0, 1_000_000, 1_000_000, 1_000_000, 2_000_000, 2_000_000, 2_000_000]);
        assert_eq!(schedule.due_count(1_000_006), 1);
        assert_eq!(schedule.due_count(1_000_007), 4);
        let slow = Schedule::new(0, rate("0.001"), 1_000_000);
        assert_eq!((slow.due_ns(1), slow.due_count(999_999_999_999)), (1_000_000_000_000, 1));
    }

    #[test]
    fn rounding_does_not_add_up() {
        assert_eq!(Schedule::new(0, rate("3"), 1).due_ns(3 * 86_400), 86_400_000_000_000);
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        for count in 0..20 {
            assert_eq!((0..7).map(|member| share_of(count, member, 7)).sum::<u64>(), count);
        }
        assert_eq!(share_of(u64::MAX, 1, 2), u64::MAX / 2);
    }

    #[test]
    fn the_turns_of_all_workers_together_are_every_event_once() {
        let mut events = Vec::new();
        for own in [vec![0, 2, 4], vec![1, 3]] {
            let mut turns = Turns::new(own.clone(), 5);
            for _ in 0..own.len() * 3 {
                let (event, index) = turns.peek().unwrap();
                assert_eq!(event % 5, own[index]);
                events.push(event);
                turns.advance();
            }
        }
        events.sort_unstable();
        assert_eq!(events, (0..15).collect::<Vec<_>>());
        assert_eq!(Turns::new(Vec::new(), 5).peek(), None);
    }
}
