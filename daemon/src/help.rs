//! Help beside what the parser makes of the flag table: `oklogd help`, all commands at once, and which
//! tips are worth giving.
//!
//! Pure: it gives back what is to be printed.

use std::fmt::Write;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::{Stop, usage};
use crate::exit::Exit;
use crate::flags::Flag;
use crate::habits;
use crate::settings::is_alike;

/// Behind the flags of one command, of which this is one.
pub(crate) fn more(flag: &Flag, examples: &[(&str, &str)]) -> String {
    let mut text = String::new();
    if !examples.is_empty() {
        text.push_str("Examples:\n");
        for (line, words) in examples {
            // Writing to memory cannot fail.
            let _ = writeln!(text, "  {line}\n      {words}");
        }
        text.push('\n');
    }
    text + &variable_of(flag) + " --help-all shows every flag and its variable."
}

/// How a flag is given otherwise, by example.
pub(crate) fn variable_of(flag: &Flag) -> String {
    let (name, variable) = (flag.name, flag.variable());
    format!("Every flag can be given by a variable, too: --{name} by {variable}.")
}

/// The same where every flag is shown.
pub(crate) const PRECEDENCE: &str = "A flag beats its variable, which beats its key in the file of --config, which beats the default.";

/// What `oklogd help …` stands for: the same as `oklogd … --help`.
pub(crate) fn of(arguments: &[String]) -> Option<Vec<String>> {
    let (word, command) = arguments.split_first()?;
    (word == "help").then(|| command.iter().cloned().chain(["--help".to_owned()]).collect())
}

/// Every command with everything that it takes.
pub(crate) fn of_all_commands(mut root: clap::Command) -> Stop {
    root.build();
    let pages: Vec<_> = std::iter::once(root.render_help())
        .chain(root.get_subcommands_mut().map(clap::Command::render_help))
        .collect();
    let (mut text, mut coloured) = (String::new(), String::new());
    for page in pages {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{page}");
        let _ = writeln!(coloured, "{}", page.ansi());
    }
    Stop { text, coloured, exit: Exit::Done }
}

/// The first of the words of an error's context.
fn first(value: Option<&ContextValue>) -> String {
    match value {
        Some(ContextValue::String(word)) => word.clone(),
        Some(ContextValue::Strings(words)) => words.first().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// What somebody means who knows another program.
fn habit(command: Option<&str>, error: &clap::Error) -> Option<String> {
    match (error.kind(), command) {
        (ErrorKind::InvalidSubcommand, _) => {
            habits::of_command(&first(error.get(ContextKind::InvalidSubcommand)))
        }
        (ErrorKind::UnknownArgument, Some(command)) => {
            habits::of_flag(command, &first(error.get(ContextKind::InvalidArg)))
        }
        _ => None,
    }
}

/// What the parser says, without tips that lead elsewhere: those whose words are not much alike.
pub(crate) fn without_far_tips(command: Option<&str>, mut error: clap::Error) -> Stop {
    if let Some(words) = habit(command, &error) {
        return usage(&words);
    }
    for (kind, given) in [
        (ContextKind::SuggestedSubcommand, ContextKind::InvalidSubcommand),
        (ContextKind::SuggestedArg, ContextKind::InvalidArg),
    ] {
        if !is_alike(&first(error.get(kind)), &first(error.get(given))) {
            error.remove(kind);
        }
    }
    let words = error.render();
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    // Where a tip was, it leaves its empty line.
    let one_empty_line = |text: String| text.replace("\n\n\n", "\n\n");
    let (text, coloured) = (words.to_string(), words.ansi().to_string());
    Stop { text: one_empty_line(text), coloured: one_empty_line(coloured), exit }
}
