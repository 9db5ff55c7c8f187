//! Scenes: plans that make the race likely that a rule guards against.
//!
//! A scene says what clients and nodes do and draws the details from the seed. Clients, nodes, log and checks are those of
//! every run, and with all rules in place a scene must pass.

mod exactly_once;
mod fence;
mod keepers;
mod retained;
pub(crate) mod stage;
mod watermarks;
mod wills;

use std::fmt;
use std::pin::Pin;

use millrace::ledger::rules::Rule;

use self::stage::Stage;
use crate::dice::Dice;
use crate::plan::Plan;
pub(crate) use crate::run::MESSAGES;

/// The kafka topic of sessions.
pub(crate) const SESSIONS: &str = "mqtt.sessions";

/// A scene as it is played.
pub(crate) type Playing<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A plan with a name.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    /// What happens in it.
    pub(crate) text: &'static str,
    /// The rules whose absence it is to show.
    pub(crate) rules: &'static [Rule],
    /// Changes to what is planned.
    pub(crate) plan: fn(&mut Plan, &mut Dice),
    pub(crate) play: for<'a, 'b> fn(&'a mut Stage<'b>) -> Playing<'a>,
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.text)
    }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Scene> {
    let groups =
        [fence::SCENES, keepers::SCENES, exactly_once::SCENES, wills::SCENES, watermarks::SCENES, retained::SCENES];
    groups.into_iter().flatten()
}

/// A run that notices that a rule is missing.
pub(crate) struct Caught {
    pub(crate) rule: Rule,
    /// `None`: what the seed draws at large.
    pub(crate) scene: Option<&'static str>,
    pub(crate) seed: u64,
}

/// One for each rule that is known to be noticed.
pub(crate) fn caught() -> impl Iterator<Item = &'static Caught> {
    let groups =
        [fence::CAUGHT, keepers::CAUGHT, exactly_once::CAUGHT, wills::CAUGHT, watermarks::CAUGHT, retained::CAUGHT];
    groups.into_iter().flatten()
}

/// The scene of this name.
pub(crate) fn named(name: &str) -> Option<&'static Scene> {
    all().find(|scene| scene.name == name)
}

/// Those that are to show what this rule is for.
pub(crate) fn of(rule: Rule) -> impl Iterator<Item = &'static Scene> {
    all().filter(move |scene| scene.rules.contains(&rule))
}
