//! What hands that know grep, journalctl or kubectl type, and what that is called here.
//!
//! Pure: it gives back what is to be printed.

/// Commands that ask for records.
const ASKING: [&str; 3] = ["query", "stream", "histogram"];

/// Commands of others, and what does the same.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["grep", "rg", "search", "find", "select", "cat"],
        "oklogd query EXPR prints records that match",
    ),
    (
        &["tail", "logs", "log", "follow", "watch"],
        "oklogd stream follows records as they come, -n N with the newest before",
    ),
    (&["start", "run", "serve", "server", "node", "agent"], "oklogd ingeststore runs a node"),
    (&["send", "ship", "pipe", "push"], "oklogd forward ADDR sends standard input to a node"),
    (&["stats", "count", "wc"], "oklogd query -c counts, --stats tells what a query costs"),
    (&["check", "verify"], "oklogd fsck PATH checks a data directory"),
];

/// Flags of others where records are asked for, and what does the same.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &["-e", "-g", "--grep", "--expression", "--regexp"],
        "an expression stands alone or behind -q, as often as you like: all of them must match",
    ),
    (
        &["-E", "-P", "--extended-regexp", "--perl-regexp"],
        "--regex takes expressions as regular expressions",
    ),
    (
        &["-F", "--fixed-strings"],
        "expressions are plain text unless --regex is given: leave it out",
    ),
    (&["--invert-match", "--exclude", "--not"], "-x EXPR leaves out what matches"),
    (&["-m", "--max-count", "--head"], "--limit N prints the first N, -n N the newest"),
    (&["--tail"], "-n N prints the newest N"),
    (&["-f", "--follow"], "oklogd stream follows records as they come"),
    (
        &["-u", "--unit", "-l", "--selector", "--namespace", "--container"],
        "--topic NAME takes records of one topic",
    ),
    (&["-S"], "--since TIME says from when on"),
    (&["-U"], "--until TIME says until when"),
    (&["-p", "--priority", "--level"], "levels are text of a record like any other: -q ERROR"),
    (&["-r", "-R", "--recursive"], "a node searches all that it holds: leave it out"),
];

/// What a command that there is not stands for.
pub(crate) fn of_command(word: &str) -> Option<String> {
    told(COMMANDS, word).map(|means| format!("there is no command {word:?}; {means}"))
}

/// What a flag that a command has not stands for.
pub(crate) fn of_flag(command: &str, flag: &str) -> Option<String> {
    let flag = flag.split('=').next().unwrap_or(flag);
    let means = told(FLAGS, flag).filter(|_| ASKING.contains(&command))?;
    Some(format!("{command} has no {flag}; {means}"))
}

fn told(table: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(words, _)| words.contains(&word)).map(|(_, means)| *means)
}

#[cfg(test)]
mod tests {
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
        // Elsewhere they may mean anything.
        assert!(!run(&["forward", "-e", "x"]).text.contains("-q"));
    }
}
