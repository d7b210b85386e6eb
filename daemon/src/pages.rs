//! Pages that are made of the command and flag tables: shell completions and the manual.
//!
//! Invariants: both show every flag, also those that only `--help-all` shows; the same binary
//! always makes the same bytes.

use clap_mangen::Man;

use crate::cli::{self, Shows};
use crate::commands::{COMMANDS, CommandRow};
use crate::flags::Flag;
use crate::help;
use crate::shell::Shell;

/// What a shell sources to complete command lines.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    use clap_complete::shells::{Bash, Elvish, Fish, Zsh};
    let mut command = cli::parser(Shows::Values);
    let mut out = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, "oklogd", &mut out),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, "oklogd", &mut out),
        Shell::Fish => clap_complete::generate(Fish, &mut command, "oklogd", &mut out),
        Shell::Elvish => clap_complete::generate(Elvish, &mut command, "oklogd", &mut out),
    }
    out
}

/// What stands behind the options of every page.
const ENVIRONMENT: &str = r"Every flag has a variable: OKLOGD_ and the flag's name in upper case, . and \- replaced by _. A flag
beats its variable, which beats its key in the file of \-\-config, which beats the default.
.TP
NO_COLOR, TERM
With NO_COLOR set, or TERM=dumb, nothing is coloured unless \-\-color always says so.
.TP
TZ
The zone of times that are given without one.
.TP
LC_ALL, LC_CTYPE, LANG
Whether bars may be made of other characters than ASCII.
";

const EXIT_STATUS: &str = r"0
Done, also when nothing matched.
.TP
1
Error.
.TP
2
Usage: no or unknown command, flag or value.
.TP
3
Incomplete results: they are printed, what is missing is told on standard error.
.TP
4
\fBfsck\fR or \fBrestore\fR found damage.
.TP
5
Nothing matched, and \-\-fail\-empty was given.
";

/// Files of every command.
const FILES: &[(&str, &str)] = &[
    (
        "FILE of --config",
        "further settings, in TOML; its keys are flag names, quoted where they hold a dot",
    ),
    ("/etc/localtime, /usr/share/zoneinfo", "time zones"),
];

/// The manual page of all commands, in the form that `man` reads.
pub(crate) fn manual() -> Vec<u8> {
    let mut root = cli::parser(Shows::All);
    root.build();
    let page = Man::new(root.clone());
    let mut text = rendered(&|out| page.render_title(out));
    text += &rendered(&|out| page.render_name_section(out));
    text += &rendered(&|out| page.render_synopsis_section(out));
    text += &rendered(&|out| page.render_description_section(out));
    text += ".SH COMMANDS\n";
    for row in COMMANDS {
        text += &[".SS oklogd ", row.name, "\n", &roff(row.about), "\n.PP\n"].concat();
        let Some(command) = root.find_subcommand(row.name) else { continue };
        let page = Man::new(command.clone());
        text += &below_heading(&rendered(&|out| page.render_synopsis_section(out)));
        text += ".PP\n";
        text += &below_heading(&rendered(&|out| page.render_options_section(out)));
    }
    let examples: Vec<_> =
        COMMANDS.iter().filter_map(|row| row.examples.first()).copied().collect();
    text += &pairs("EXAMPLES", &examples);
    text += &pairs("FILES", FILES);
    text += &environment(None);
    text += &[".SH EXIT STATUS\n.TP\n", EXIT_STATUS].concat();
    let others: Vec<_> = COMMANDS.iter().map(|row| row.name).collect();
    text += &see_also(&others, false);
    text.into_bytes()
}

/// The manual page of one command.
pub(crate) fn manual_of(row: &CommandRow) -> Vec<u8> {
    let mut root = cli::parser(Shows::All);
    root.build();
    let command = root.find_subcommand(row.name).cloned().unwrap_or_default();
    let page = Man::new(command).title(format!("oklogd-{}", row.name));
    let about = roff(row.about);
    let more = if row.more.is_empty() { String::new() } else { roff(row.more) + "\n" };
    let mut text = [
        rendered(&|out| page.render_title(out)),
        format!(".SH NAME\noklogd\\-{} \\- {about}\n", row.name),
        rendered(&|out| page.render_synopsis_section(out)),
        format!(".SH DESCRIPTION\n{about}.\n.PP\n{more}"),
        rendered(&|out| page.render_options_section(out)),
    ]
    .concat();
    text += &pairs("EXAMPLES", row.examples);
    text += &pairs("FILES", &[row.files, FILES].concat());
    text += &environment(row.flags.first());
    text += &[".SH EXIT STATUS\n.TP\n", EXIT_STATUS].concat();
    text += &see_also(row.see_also, true);
    text.into_bytes()
}

fn rendered(write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    // Writing to memory cannot fail.
    let _ = write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A section without its own heading: it stands below the one of its command.
fn below_heading(section: &str) -> String {
    let body = section.lines().filter(|line| !line.starts_with(".SH"));
    body.flat_map(|line| [line, "\n"]).collect()
}

/// A section of terms and what they are.
fn pairs(heading: &str, pairs: &[(&str, &str)]) -> String {
    let one = |(term, words): &(&str, &str)| format!(".TP\n{}\n{}\n", roff(term), roff(words));
    let all: String = pairs.iter().map(one).collect();
    if all.is_empty() { all } else { format!(".SH {heading}\n{all}") }
}

fn environment(flag: Option<&Flag>) -> String {
    let one = flag.map_or_else(String::new, |flag| format!("{}\n", roff(&help::variable_of(flag))));
    format!(".SH ENVIRONMENT\n{one}{ENVIRONMENT}")
}

fn see_also(names: &[&str], is_part: bool) -> String {
    let root = is_part.then(|| ".BR oklogd (1)".to_owned());
    let others = names.iter().map(|name| format!(".BR oklogd\\-{name} (1)"));
    let all: Vec<_> = root.into_iter().chain(others).collect();
    format!(".SH SEE ALSO\n{}\n", all.join(",\n"))
}

/// Text as roff has it.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag_table::ALL;
    use crate::flags::Kind;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn completions_know_every_command_flag_and_word() {
        for shell in Shell::ALL {
            let text = text(completions(shell));
            for flag in ALL.iter().flat_map(|table| table.iter()) {
                // The generator for elvish knows no values.
                let words = match flag.kind {
                    Kind::Choice(words) if shell != Shell::Elvish => words,
                    _ => &[],
                };
                for part in words.iter().chain(flag.aliases).chain([&flag.name]) {
                    assert!(text.contains(part), "{}: --{} {part}", shell.name(), flag.name);
                }
            }
            for row in COMMANDS {
                assert!(text.contains(row.name), "{}: {}", shell.name(), row.name);
            }
        }
    }

    #[test]
    fn the_manual_has_every_command_and_flag_once_under_its_heading() {
        let text = text(manual());
        assert!(text.starts_with(".ie") || text.starts_with(".TH"), "{}", &text[..80]);
        assert_eq!(text.matches("\n.TH ").count() + usize::from(text.starts_with(".TH ")), 1);
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"]
        {
            assert_eq!(text.matches(&format!(".SH {section}\n")).count(), 1, "{section}");
        }
        for row in COMMANDS {
            let part = text.split(".SS oklogd ").find(|part| part.starts_with(row.name)).unwrap();
            for flag in row.flags {
                let escaped = format!("\\-\\-{}", flag.name.replace('-', "\\-"));
                assert!(part.contains(&escaped), "{}: {escaped}", row.name);
            }
        }
    }

    #[test]
    fn the_page_of_a_command_says_all_of_it() {
        for row in COMMANDS {
            let text = text(manual_of(row));
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "ENVIRONMENT", "SEE ALSO"] {
                assert_eq!(text.matches(&format!(".SH {section}\n")).count(), 1, "{section}");
            }
            assert!(text.contains(&format!("oklogd\\-{} \\- ", row.name)), "{text}");
            assert_eq!(text.contains(".SH EXAMPLES\n"), !row.examples.is_empty(), "{}", row.name);
            // What cannot be run yet has no example.
            let is_here = !row.flags.is_empty() && !row.about.contains("not in this version");
            assert!(!is_here || !row.examples.is_empty(), "{}", row.name);
            for name in row.see_also {
                assert!(CommandRow::named(name).is_some(), "{name}");
            }
            for flag in row.flags {
                let escaped = format!("\\-\\-{}", flag.name.replace('-', "\\-"));
                assert!(text.contains(&escaped), "{}: {escaped}", row.name);
            }
            // What begins with a dot or a quote would be a request.
            let requests = text.lines().filter(|line| line.starts_with(['.', '\'']));
            for line in requests {
                let word = line.split(' ').next().unwrap();
                let known = [
                    ".ie", ".el", ".TH", ".SH", ".SS", ".TP", ".PP", ".IP", ".BR", ".RS", ".RE",
                    ".br",
                ];
                assert!(known.contains(&word), "{}: {line}", row.name);
            }
        }
    }
}
