//! From a command to an exit code: 0 done, 1 failed or not as it should be, 2 the arguments or the configuration are
//! wrong.

pub(crate) mod args;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use args::{Cli, Command, ConfigCommand, ShowArgs, TopicsCommand};
use millrace::config::{self, Config, JournalChoice, Loaded, Preset, Sources};
use millrace::journal::SharedJournal;
use millrace::ops::logging;
use millrace::ops::shutdown::{Shutdown, listen_for_signals};
use millrace::server::{self, Server};
use millrace::topics::{self, Plan};

/// The arguments or the configuration are wrong; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Why a command ends without success.
enum Failure {
    /// The configuration is wrong.
    Config(String),
    /// Something did not work.
    Failed(String),
    /// Everything was said already.
    Said,
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Performs the command.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Dev(args) => load(&args.sources()).and_then(|loaded| node(&loaded.config, Preset::Dev)),
        Command::Serve(args) => {
            load(&args.sources(Preset::Serve)).and_then(|loaded| node(&loaded.config, Preset::Serve))
        }
        Command::Topics(command) => topics(&command),
        Command::Config(command) => show_config(command),
    };
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Config(message)) => (ExitCode::from(EXIT_USAGE), message),
        Err(Failure::Failed(message)) => (ExitCode::FAILURE, message),
        Err(Failure::Said) => return ExitCode::FAILURE,
    };
    eprintln!("millrace: {message}");
    code
}

fn load(sources: &Sources) -> Result<Loaded, Failure> {
    config::load(sources).map_err(|errors| Failure::Config(errors.to_string()))
}

/// Writes to standard output; a reader that went away is nobody's failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn show_config(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Default => print(config::DEFAULTS),
        ConfigCommand::Check(args) => {
            load(&args.sources(Preset::Serve))?;
            print("the configuration is valid\n")
        }
        ConfigCommand::Show(ShowArgs { with_source, sources }) => {
            let loaded = load(&sources.sources(Preset::Serve))?;
            for entry in &loaded.effective {
                let source = if with_source { format!("  # {}", entry.source) } else { String::new() };
                print(&format!("{entry}{source}\n"))?;
            }
            Ok(())
        }
    }
}

fn topics(command: &TopicsCommand) -> Result<(), Failure> {
    let (TopicsCommand::Plan(args) | TopicsCommand::Apply(args) | TopicsCommand::Check(args)) = command;
    let config = load(&args.clone().sources(Preset::Serve))?.config;
    logging::init(&config.log);
    let wanted = topics::wanted(&config);
    runtime()?.block_on(async {
        let journal = open_journal(&config).await?;
        let plan = topics::plan(&*journal, wanted).await?;
        match command {
            TopicsCommand::Plan(_) => print(&plan.to_string()),
            TopicsCommand::Apply(_) => {
                let created: Vec<String> = plan.missing().map(|wanted| wanted.spec.name.clone()).collect();
                let plan = topics::create_missing(&*journal, plan).await?;
                for name in created {
                    print(&format!("created {name}\n"))?;
                }
                verdict(&plan)
            }
            TopicsCommand::Check(_) => {
                let checked = verdict(&plan);
                print(&topics::fences(&*journal, &plan).await?.to_string())?;
                checked
            }
        }
    })
}

/// Prints the plan; fails if a node would refuse to start on it.
fn verdict(plan: &Plan) -> Result<(), Failure> {
    print(&plan.to_string())?;
    if plan.is_fatal() { Err(Failure::Said) } else { Ok(()) }
}

/// Connects to the configured Kafka, for the commands that only look at it.
async fn open_journal(config: &Config) -> Result<SharedJournal, Failure> {
    match &config.journal {
        JournalChoice::Memory => Err("journal.kind is \"memory\", which has no kafka topics to look at".into()),
        JournalChoice::Kafka(kafka) => Ok(server::open_admin(config, kafka).await?),
    }
}

fn node(config: &Config, preset: Preset) -> Result<(), Failure> {
    logging::init(&config.log);
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        listen_for_signals(&shutdown)?;
        let server = server::start(config.clone(), shutdown).await?;
        if preset == Preset::Dev {
            print(&welcome(config, &server))?;
        }
        Ok(server.run().await?)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Three lines that lead to the first message.
fn welcome(config: &Config, server: &Server) -> String {
    let (Some(address), Some(ops)) = (server.mqtt.first(), server.ops) else { return String::new() };
    let (host, port) = (address.ip(), address.port());
    let journal = match &config.journal {
        JournalChoice::Memory => "messages in memory until it ends".to_owned(),
        JournalChoice::Kafka(kafka) => format!("messages in Kafka at {}", kafka.bootstrap.join(",")),
    };
    format!(
        "millrace {version}: MQTT at {address}, health and metrics at http://{ops}, {journal}\n  \
         subscribe: mosquitto_sub -h {host} -p {port} -q 1 -v -t 'hello/#'\n  \
         publish:   mosquitto_pub -h {host} -p {port} -q 1 -t hello/world -m 'good morning'\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}
