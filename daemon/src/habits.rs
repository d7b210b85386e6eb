//! What hands that know grep, journalctl or kubectl type, and what that is called here.
//!
//! Pure: it gives back what is to be printed.

/// Commands of others, and what does the same.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["grep", "rg", "search", "find", "cat"], "oklogd query EXPR prints records that match"),
    (
        &["tail", "logs", "log", "follow", "watch"],
        "oklogd stream follows records as they come, -n N with the newest before",
    ),
    (&["start", "run", "serve", "server", "node", "agent"], "oklogd ingeststore runs a node"),
    (&["send", "ship", "pipe", "push"], "oklogd forward ADDR sends standard input to a node"),
    (
        &["stats", "count", "wc"],
        "oklogd query -c counts, query --stats tells what a query costs, status how the node is",
    ),
    (&["check", "verify"], "oklogd fsck PATH checks a data directory"),
];

/// All commands that ask for records, and some of them.
const ALL: &[&str] = &["query", "stream", "histogram"];
const QUERY: &[&str] = &["query"];
const STREAM: &[&str] = &["stream"];
const LISTS: &[&str] = &["query", "stream"];

/// Flags of others, of which commands here, and what does the same.
const FLAGS: &[(&[&str], &[&str], &str)] = &[
    (
        &["-e", "--expression"],
        ALL,
        "an expression stands alone or behind -q, as often as you like: all of them must match",
    ),
    (
        &["-g", "--grep", "--regexp", "-E", "-P", "--extended-regexp", "--perl-regexp"],
        ALL,
        "--regex takes expressions as regular expressions; they stand alone or behind -q",
    ),
    (
        &["-F", "--fixed-strings"],
        ALL,
        "expressions are plain text unless --regex is given: leave it out",
    ),
    (&["--invert-match", "--exclude", "--not"], ALL, "-x EXPR leaves out what matches"),
    (&["-m", "--max-count", "--head"], QUERY, "--limit N prints the first N, -n N the newest"),
    (&["-m", "--max-count", "--tail"], STREAM, "-n N prints the newest N before what comes"),
    (&["--tail"], QUERY, "-n N prints the newest N"),
    (&["-f", "--follow"], QUERY, "oklogd stream follows records as they come"),
    (&["-f", "--follow"], STREAM, "it follows anyway: leave it out"),
    (
        &["-u", "--unit", "--selector", "--namespace", "--container"],
        ALL,
        "--topic NAME takes records of one topic",
    ),
    (
        &["-p", "--priority", "--level"],
        LISTS,
        "levels are text of a record like any other: -i -q error finds them",
    ),
    (&["-p", "--priority", "--level"], &["histogram"], "--by level divides the bars by level"),
    (
        &["-r", "-R", "--recursive", "--reverse"],
        QUERY,
        "a node searches all that it holds; --order desc prints the newest first",
    ),
];

/// What a command that there is not stands for.
pub(crate) fn of_command(word: &str) -> Option<String> {
    let means = COMMANDS.iter().find(|(words, _)| words.contains(&word));
    means.map(|(_, means)| format!("there is no command {word:?}; {means}"))
}

/// What a flag that a command has not stands for.
pub(crate) fn of_flag(command: &str, flag: &str) -> Option<String> {
    let flag = flag.split('=').next().unwrap_or(flag);
    let mut rows = FLAGS.iter();
    let means =
        rows.find(|(flags, commands, _)| flags.contains(&flag) && commands.contains(&command));
    means.map(|(.., means)| format!("{command} has no {flag}; {means}"))
}

#[cfg(test)]
mod tests {
    use super::FLAGS;
    use crate::cli::{Stop, parse};
    use crate::exit::Exit;

    fn run(line: &[&str]) -> Stop {
        let line: Vec<_> = line.iter().map(|&word| word.to_owned()).collect();
        parse(&line, &[]).map(drop).unwrap_err()
    }

    #[test]
    fn who_knows_another_program_is_told_the_word_that_is_used_here() {
        for (line, words) in [
            (&["grep", "x"][..], "oklogd query"),
            (&["tail"], "oklogd stream"),
            (&["serve", "--api", ":1"], "oklogd ingeststore"),
            (&["query", "-e", "x"], "-q"),
            (&["stream", "--fixed-strings", "x"], "leave it out"),
            (&["query", "--max-count=3", "x"], "--limit N"),
            (&["query", "--invert-match", "x"], "-x EXPR"),
            (&["query", "-f"], "oklogd stream"),
        ] {
            let stop = run(line);
            assert_eq!((stop.exit, stop.text.lines().count()), (Exit::Usage, 1), "{}", stop.text);
            assert!(stop.text.contains(words), "{line:?}: {}", stop.text);
        }
        assert!(
            run(&["histogram", "-m", "3"]).text.contains("unexpected"),
            "nothing does the same"
        );
        // Elsewhere they may mean anything.
        assert!(!run(&["forward", "-e", "x"]).text.contains("-q"));
    }

    #[test]
    fn what_is_advised_is_there() {
        for (_, commands, means) in FLAGS {
            for command in *commands {
                let row = crate::commands::CommandRow::named(command).unwrap();
                let words = means.split([' ', ';', ':', ',']);
                for word in words.filter(|word| word.starts_with('-')) {
                    let name = word.trim_start_matches('-');
                    let is_there = row.flags.iter().any(|flag| {
                        flag.name == name
                            || flag.short.is_some_and(|short| short.to_string() == name)
                    });
                    assert!(is_there, "{command} has no {word}, which is advised");
                }
            }
        }
    }
}
