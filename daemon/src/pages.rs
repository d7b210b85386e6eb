//! Pages that are made of the flag table: shell completions and the manual.
//!
//! Invariants: both show every flag, also those that only `--help-all` shows; the same binary
//! always makes the same bytes.

use clap_mangen::Man;

use crate::cli;
use crate::shell::Shell;

/// What a shell sources to complete command lines.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    use clap_complete::shells::{Bash, Elvish, Fish, Zsh};
    let mut command = cli::parser(true);
    let mut out = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, "oklogd", &mut out),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, "oklogd", &mut out),
        Shell::Fish => clap_complete::generate(Fish, &mut command, "oklogd", &mut out),
        Shell::Elvish => clap_complete::generate(Elvish, &mut command, "oklogd", &mut out),
    }
    out
}

/// What stands behind the commands in the manual.
const REST: &str = r".SH ENVIRONMENT
Every flag has a variable: OKLOGD_ and the flag's name in upper case, . and \- replaced by _. A flag
beats its variable, which beats its key in the file of \-\-config, which beats the default.
.PP
NO_COLOR: colours are never used.
.SH EXIT STATUS
.TP
0
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

/// The manual page of all commands, in the form that `man` reads.
pub(crate) fn manual() -> Vec<u8> {
    let mut root = cli::parser(true);
    root.build();
    let page = Man::new(root.clone());
    // Writing to memory cannot fail.
    let render = |write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut out = Vec::new();
        let _ = write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    let mut text = render(&|out| page.render_title(out));
    text += &render(&|out| page.render_name_section(out));
    text += &render(&|out| page.render_synopsis_section(out));
    text += &render(&|out| page.render_description_section(out));
    text += ".SH COMMANDS\n";
    for command in root.get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let page = Man::new(command.clone());
        text += &[".SS oklogd ", command.get_name(), "\n", &about.replace('-', "\\-"), "\n.PP\n"]
            .concat();
        text += &below_heading(&render(&|out| page.render_synopsis_section(out)));
        text += ".PP\n";
        text += &below_heading(&render(&|out| page.render_options_section(out)));
    }
    text += REST;
    text.into_bytes()
}

/// A section without its own heading: it stands below the one of its command.
fn below_heading(section: &str) -> String {
    let body = section.lines().filter(|line| !line.starts_with(".SH"));
    body.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag_table::{ALL, NODE};

    #[test]
    fn completions_know_every_command_and_flag() {
        for shell in Shell::ALL {
            let text = String::from_utf8(completions(shell)).unwrap();
            for flag in ALL.iter().flat_map(|table| table.iter()) {
                assert!(text.contains(flag.name), "{}: {}", shell.name(), flag.name);
            }
            assert!(text.contains("ingeststore") && text.contains("testsvc"));
        }
    }

    #[test]
    fn the_manual_has_every_command_and_flag_once_under_its_heading() {
        let text = String::from_utf8(manual()).unwrap();
        assert!(text.starts_with(".ie") || text.starts_with(".TH"), "{}", &text[..80]);
        assert_eq!(text.matches("\n.TH ").count() + usize::from(text.starts_with(".TH ")), 1);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS"] {
            assert_eq!(text.matches(&format!(".SH {section}")).count(), 1, "{section}");
        }
        let node = text.split(".SS oklogd ").find(|part| part.starts_with("ingeststore")).unwrap();
        for flag in NODE {
            let escaped = format!("\\-\\-{}", flag.name.replace('-', "\\-"));
            assert!(node.contains(&escaped), "{escaped}");
        }
    }
}
