//! `echobench completions SHELL` and `echobench man DIR`: completion scripts and man pages, generated from
//! the definition of the command line.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use echobench_clients::Driver;
use echobench_protocol::Service;
use echobench_servers::MODELS;

use super::Cli;
use crate::claims::CLAIMS;
use crate::out;
use crate::scenario::{Placement, Scenario};

/// Options of `completions`.
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Options of `man`.
#[derive(Args)]
pub struct ManArgs {
    /// Folder of the pages
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut commands = public_commands().subcommands(subcommands()?);
    clap_complete::generate(args.shell, &mut commands, "echobench", &mut script);
    out!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}

/// The command line itself, without its commands.
fn public_commands() -> Command {
    let about = Cli::command().get_about().cloned();
    Command::new("echobench")
        .about(about.unwrap_or_default())
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
}

/// Commands and options that are not hidden, with the names that their values are chosen from.
fn subcommands() -> anyhow::Result<Vec<Command>> {
    let whole = Cli::command();
    let names = names()?;
    let shown = whole.get_subcommands().filter(|one| !one.is_hide_set());

    let offering = |command: &Command| {
        let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
        let arguments = arguments.map(|argument| offer(argument.clone(), command, &names));
        Command::new(command.get_name().to_owned())
            .about(command.get_about().cloned().unwrap_or_default())
            .args(arguments.collect::<Vec<Arg>>())
    };
    Ok(shown.map(offering).collect())
}

/// Names that are completed, by the value name of an option or argument.
struct Names(Vec<(&'static str, Vec<String>)>);

fn names() -> anyhow::Result<Names> {
    let scenarios = Scenario::built_in()?.into_iter().map(|one| one.name);
    let models: Vec<String> = MODELS.iter().map(|model| model.name.to_owned()).collect();
    let claims = CLAIMS.iter().map(|claim| claim.id.to_owned());

    Ok(Names(vec![
        ("SCENARIO", scenarios.collect()),
        ("MODEL", models.clone()),
        ("MODELS", models),
        ("ID", claims.collect()),
        ("DRIVER", texts(Driver::ALL)),
        ("PLACEMENT", texts(&Placement::ALL)),
        ("SERVICE", texts(Service::ALL)),
    ]))
}

fn texts(values: &[impl Display]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// An argument with the names of its values. Other values stay possible: the scripts only offer these.
fn offer(argument: Arg, command: &Command, Names(names): &Names) -> Arg {
    let value_name = match argument.get_value_names() {
        // Models stand for themselves in the commands that take one.
        _ if argument.is_positional() && matches!(command.get_name(), "serve" | "verify") => {
            "MODEL"
        }
        Some([one, ..]) => one.trim_end_matches(",…"),
        _ => return argument,
    };
    match names.iter().find(|(name, _)| *name == value_name) {
        Some((_, values)) => argument
            .value_delimiter(None)
            .value_parser(PossibleValuesParser::new(values)),
        None => argument,
    }
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let place = || format!("cannot write man pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(place)?;

    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let commands = whole.get_subcommands().filter(|one| !one.is_hide_set());
    for command in commands.chain([&whole]) {
        let name = command.get_display_name().unwrap_or("echobench");
        let page = man_page(name, command.clone()).with_context(place)?;
        std::fs::write(args.folder.join(format!("{name}.1")), page).with_context(place)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn man_page(name: &str, command: Command) -> std::io::Result<String> {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut page = Vec::new();
    Man::new(command.name(name.to_owned()))
        .title(name)
        .date(today)
        .source(concat!("echobench ", env!("CARGO_PKG_VERSION")))
        .manual("echobench")
        .render(&mut page)?;

    // Two breaks around an empty line, for a list of values, are one paragraph too many for mandoc.
    let page = String::from_utf8_lossy(&page);
    Ok(page.replace("\n.br\n\n.br\n", "\n.sp\n"))
}
