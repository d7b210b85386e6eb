//! Every command line of `oklogd` that README and the pages for users show is one that it reads.
//!
//! Lines of fenced blocks; what is in running text is not looked at.

use std::path::Path;

/// Pages with command lines, from the top of the workspace.
const PAGES: [&str; 9] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    "docs/faq.md",
    "docs/figures.md",
    "docs/ingest.md",
    "docs/operate.md",
    "docs/query.md",
];

/// Blocks of a shell: `sh` as it is, `console` behind `$ `.
fn shell_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut block = None;
    for line in page.replace("\\\n", " ").lines() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_some() { None } else { Some(kind.to_owned()) };
            continue;
        }
        let shown = match block.as_deref() {
            Some("sh") => Some(line),
            Some("console") => line.strip_prefix("$ "),
            _ => None,
        };
        lines.extend(shown.map(str::to_owned));
    }
    lines
}

/// The commands of a line as a shell takes it apart: quotes, comments, pipes.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '|' | ';') => {
                words.extend(word.take());
                if c != ' ' {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is open: {line}");
    words.extend(word);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

/// The arguments, if it is `oklogd` that is called, by cargo or by its name.
fn arguments(words: &[String]) -> Option<&[String]> {
    if words[0].ends_with("oklogd") {
        return Some(&words[1..]);
    }
    let is_run = words.starts_with(&["cargo".to_owned(), "run".to_owned()]);
    let is_daemon = words.windows(2).any(|pair| pair == ["-p", "daemon"]);
    let end = words.iter().position(|word| word == "--")?;
    (is_run && is_daemon).then_some(&words[end + 1..])
}

#[test]
fn every_command_line_that_is_shown_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut of_readme = 0;
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let lines = shell_lines(&text);
        for words in lines.iter().flat_map(|line| commands(line)) {
            let Some(arguments) = arguments(&words) else { continue };
            // In the loop over all commands of deploy/README.md, which a test of its own runs.
            if arguments.iter().any(|word| word == "$command") {
                continue;
            }
            let read = crate::cli::parse(arguments, &[]);
            assert!(read.is_ok(), "{page}: {words:?}: {:?}", read.err());
            of_readme += usize::from(page == "README.md");
        }
    }
    assert!(of_readme > 5, "README's command lines have moved");
}

#[test]
fn lines_are_taken_apart_as_a_shell_does() {
    let words = |line| commands(line).concat().join("·");
    assert_eq!(words("oklogd query -q 'a b' # c"), "oklogd·query·-q·a b");
    assert_eq!(words(r#"app | oklogd forward "$X" logs1"#), "app·oklogd·forward·$X·logs1");
    assert_eq!(commands("app | oklogd topics").len(), 2);
    assert_eq!(words("# nothing"), "");
    assert_eq!(words("oklogd query -q a#b"), "oklogd·query·-q·a#b");
    assert_eq!(shell_lines("```sh\na \\\nb\n```\nc\n```console\n$ d\ne\n```\n"), ["a  b", "d"]);
}
