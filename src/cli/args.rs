//! What can be typed. Flags become configuration keys here, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use millrace::config::{Flag, Preset, Sources};

/// A Kafka-native MQTT broker.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node on this machine in a second: no Kafka needed, no credentials asked
    Dev(DevArgs),
    /// Start a node
    Serve(SourceArgs),
    /// Look at the kafka topics that Millrace needs
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Print what would be created and what differs; changes nothing
    Plan(SourceArgs),
    /// Create the kafka topics that are missing; changes none that exist
    Apply(SourceArgs),
    /// Exit with 1 if a node would refuse to start on these kafka topics; tell how dead nodes can be fenced
    Check(SourceArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Exit with 2 if the configuration is not valid, and say why
    Check(SourceArgs),
    /// Print every key with its effective value, as TOML
    Show(ShowArgs),
    /// Print the defaults with a comment on every key, as TOML
    Default,
}

#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Where MQTT clients connect
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Where /metrics, /livez and /readyz are
    #[arg(long, value_name = "IP:PORT")]
    pub ops: Option<String>,
    /// Use this Kafka instead of memory, and create the kafka topics on it: host:port, several with commas
    #[arg(long, value_name = "BOOTSTRAP")]
    pub kafka: Option<String>,
    /// Name of the node
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    #[command(flatten)]
    pub sources: SourceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Also print where each value came from
    #[arg(long)]
    pub with_source: bool,
    #[command(flatten)]
    pub sources: SourceArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// A TOML file; may be given several times, later ones win
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// One key, such as `limits.connections_max=500`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<Flag>,
}

impl SourceArgs {
    /// The sources that these arguments name, with the environment of this process.
    pub(crate) fn sources(self, preset: Preset) -> Sources {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Sources { preset, files: self.config, env, flags: self.set }
    }
}

impl DevArgs {
    /// The sources that these arguments name, with the environment of this process.
    pub(crate) fn sources(self) -> Sources {
        let mut sources = self.sources.sources(Preset::Dev);
        let mut set = |flag: &str, key: &str, value: Option<String>| {
            let flag = |value| Flag { flag: flag.to_owned(), key: key.to_owned(), value };
            sources.flags.extend(value.map(flag));
        };
        set("--listen", "listen.mqtt", self.listen);
        set("--ops", "ops.address", self.ops);
        set("--kafka", "journal.kind", self.kafka.as_ref().map(|_| "kafka".to_owned()));
        set("--kafka", "kafka.bootstrap", self.kafka);
        set("--node-id", "node.id", self.node_id);
        sources
    }
}

fn parse_set(text: &str) -> Result<Flag, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as limits.connections_max=500")?;
    Ok(Flag { flag: format!("--set {key}"), key: key.trim().to_owned(), value: value.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use millrace::config::{JournalChoice, load};

    use super::*;

    fn dev(arguments: &[&str]) -> Sources {
        let words = ["millrace", "dev"].iter().chain(arguments);
        let Command::Dev(args) = Cli::try_parse_from(words).unwrap().command else { panic!("the command is dev") };
        Sources { env: Vec::new(), ..args.sources() }
    }

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dev_with_a_kafka_creates_its_kafka_topics() {
        let config = load(&dev(&["--kafka", "k1:9092,k2:9092", "--listen", "127.0.0.1:2883"])).unwrap().config;
        let JournalChoice::Kafka(kafka) = config.journal else { panic!("a Kafka was named") };
        assert_eq!(kafka.bootstrap, ["k1:9092", "k2:9092"]);
        assert_eq!(config.listen.mqtt[0].port(), 2883);
        assert!(config.topics.create);
    }

    #[test]
    fn a_wrong_flag_is_named_in_the_error() {
        let errors = load(&dev(&["--listen", "nowhere"])).unwrap_err();
        assert!(errors.to_string().ends_with("(from flag --listen)"), "{errors}");
        let errors = load(&dev(&["--set", "limits.receive_maximum=0"])).unwrap_err();
        assert!(errors.to_string().ends_with("(from flag --set limits.receive_maximum)"), "{errors}");
    }
}
