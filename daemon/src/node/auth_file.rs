//! The file that says who may do what (`--auth.file`): read at the start, and again whenever it has changed.
//!
//! `parse` makes a table of it, [`Watched`] decides what becomes of what is read, a thread reads it.
//!
//! Invariants: what cannot be used ends a start, and is told, and changes nothing, while a node runs. A change
//! counts once two looks have found the same: a file is not always written at once, and half of one takes
//! tokens away from those who have them. Tokens themselves are never read: the file has their hashes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::topic::Topic;
use net::access::{Authority, Digest, Entry, Grant, Right, Rights, Table};
use net::metrics::NodeMetrics;
use serde::Deserialize;

use super::common::Common;
use crate::settings::read_text;

/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest name of a token, characters.
const NAME_CHARS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<TokenTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    sha256: Option<String>,
    cn: Option<String>,
    rights: Vec<String>,
    topics: Option<Vec<String>>,
}

/// What a file says. The error is one line: what is wrong, where, and what to do.
pub(super) fn parse(text: &str) -> Result<Table, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            text.bytes().take(span.start).filter(|&byte| byte == b'\n').count() + 1
        });
        // Its own words quote what stands there, which may be a token in a wrong place.
        let message = error.message();
        let is_quoted = message.contains('"');
        let what = if is_quoted { "something else stands there" } else { message };
        let what = what.replace('\n', " ");
        format!(
            "line {line}: {what}; valid are [[token]] tables with name, sha256, rights and, if need \
             be, topics"
        )
    })?;
    let entries = file.token.into_iter().enumerate();
    let entries = entries.map(|(at, token)| entry(at + 1, token)).collect::<Result<_, _>>()?;
    Table::new(entries).map_err(|error| error.to_string())
}

fn entry(number: usize, token: TokenTable) -> Result<Entry, String> {
    let TokenTable { name, sha256, cn, rights, topics } = token;
    let is_name =
        (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !is_name {
        return Err(format!(
            "[[token]] {number}: its name is {name:?}; valid are 1 to {NAME_CHARS_MAX} characters"
        ));
    }
    let refused = |words: String| format!("[[token]] {number} ({name:?}): {words}");
    if cn.is_some() {
        return Err(refused(
            "cn is of client certificates, and this version speaks no TLS: use sha256".to_owned(),
        ));
    }
    let key = sha256.map(|hex| read_hex(&hex)).transpose().map_err(&refused)?;
    let mut all = Rights::default();
    for text in rights {
        let right = Right::ALL.into_iter().find(|right| right.name() == text).ok_or_else(|| {
            refused(
                "one of its rights is none; valid are \"read\", \"write\", \"admin\"".to_owned(),
            )
        })?;
        if all.has(right) {
            return Err(refused(format!("the right {text:?} stands there twice: take one out")));
        }
        all = all.and(right);
    }
    let read = |text: String| {
        Topic::new(text.as_bytes()).map_err(|_| {
            refused(
                "one of its topics is none; valid are 1 to 64 letters, digits, '_' or '-', the first \
                 one a letter or digit"
                    .to_owned(),
            )
        })
    };
    let topics = topics.map(|topics| topics.into_iter().map(read).collect::<Result<_, _>>());
    let grant = Grant { rights: all, topics: topics.transpose()?, name };
    Ok(Entry { key, grant })
}

fn read_hex(text: &str) -> Result<Digest, String> {
    let wrong = || {
        format!(
            "its sha256 is no hash: 64 hexadecimal digits are valid, {} characters stand there \
             (printf %s TOKEN | sha256sum)",
            text.chars().count()
        )
    };
    let digits = text.as_bytes();
    let mut digest = Digest::default();
    if digits.len() != 2 * digest.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong());
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

fn read(path: &Path) -> Result<String, String> {
    read_text(path).map_err(|error| format!("cannot be read: {error}"))
}

/// What a look has found.
type Found = Result<String, String>;

/// What becomes of what is read.
#[derive(Debug)]
struct Watched {
    /// What holds.
    taken: String,
    /// What the last look found, if that was not what holds.
    seen: Option<Found>,
    /// Why what is there does not hold.
    broken: Option<String>,
}

/// What a look comes to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// This holds from now on.
    Take(Table),
    /// What is there cannot be used.
    Broken(String),
    /// What is there is what holds.
    Mended,
}

impl Watched {
    const fn new(taken: String) -> Self {
        Self { taken, seen: None, broken: None }
    }

    fn look(&mut self, found: Found) -> Step {
        if found.as_ref() == Ok(&self.taken) {
            self.seen = None;
            return if self.broken.take().is_some() { Step::Mended } else { Step::Nothing };
        }
        if self.seen.as_ref() != Some(&found) {
            self.seen = Some(found);
            return Step::Nothing;
        }
        match found.and_then(|text| Ok((parse(&text)?, text))) {
            Ok((table, text)) => {
                *self = Self::new(text);
                Step::Take(table)
            }
            Err(words) if self.broken.as_ref() == Some(&words) => Step::Nothing,
            Err(words) => {
                self.broken = Some(words.clone());
                Step::Broken(words)
            }
        }
    }
}

/// The file, and who may do what by it.
#[derive(Default)]
pub(super) struct AuthFile {
    path: PathBuf,
    authority: Authority,
    /// What the start has read.
    taken: String,
    /// A sentence for the operator, where what is there cannot be used.
    trouble: Mutex<Option<String>>,
}

impl AuthFile {
    /// Reads it. The error is one line.
    pub(super) fn open(path: Option<&Path>, metrics: &NodeMetrics) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let read = read(path).and_then(|text| Ok((parse(&text)?, text)));
        let (table, taken) =
            read.map_err(|words| format!("--auth.file {}: {words}", path.display()))?;
        metrics.access.tokens.set(table.len() as i64);
        tracing::info!(tokens = table.len(), "only who has a token of --auth.file is let in");
        let authority = Authority::of(table);
        Ok(Self { path: path.to_owned(), authority, taken, trouble: Mutex::default() })
    }

    /// Who may do what.
    pub(super) const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What is wrong with it, for `/ready`.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>, metrics: &NodeMetrics) {
        metrics.access.file_failing.set(i64::from(trouble.is_some()));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Carries out what a look comes to.
    fn carry_out(&self, step: Step, metrics: &NodeMetrics) {
        match step {
            Step::Nothing => {}
            Step::Take(table) => {
                self.set_trouble(None, metrics);
                metrics.access.tokens.set(table.len() as i64);
                let tokens = table.len();
                if self.authority.set(table) {
                    metrics.access.changes.inc();
                    tracing::info!(tokens, "--auth.file has changed: it holds from now on");
                }
            }
            Step::Broken(words) => {
                let trouble = format!(
                    "--auth.file {} has changed and cannot be used, what it said before holds: {words}",
                    self.path.display()
                );
                tracing::error!("{trouble}");
                self.set_trouble(Some(trouble), metrics);
            }
            Step::Mended => {
                tracing::info!("--auth.file says again what holds");
                self.set_trouble(None, metrics);
            }
        }
    }
}

/// Starts the thread that looks at it, if there is one. Nobody waits for its end: a read that hangs must not
/// keep the node from stopping.
pub(super) fn spawn(common: Arc<Common>) -> io::Result<Option<JoinHandle<()>>> {
    if common.auth_file.authority.is_none() {
        return Ok(None);
    }
    let thread = std::thread::Builder::new().name("auth-file".into());
    let spawned = thread.spawn(move || {
        let file = &common.auth_file;
        let mut watched = Watched::new(file.taken.clone());
        while !common.work_ends.wait(LOOK_EVERY) {
            file.carry_out(watched.look(read(&file.path)), &common.metrics);
        }
    });
    spawned.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SHA-256 of "abc" and of nothing.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn good() -> String {
        format!(
            "# Who may do what.\n[[token]]\nname = \"grafana\"\nsha256 = \"{ABC}\"\nrights = [\"read\"]\n\
             topics = [\"web\", \"db\"]\n[[token]]\nname = \"anonymous\"\nrights = [\"write\"]\n"
        )
    }

    #[test]
    fn a_file_says_who_may_do_what() {
        let authority = Authority::of(parse(&good()).unwrap());
        let access = authority.admit(Some(b"abc")).unwrap();
        assert_eq!((access.name(), access.rights().names()), ("grafana", vec!["read"]));
        let topics = access.topics().unwrap().iter().map(Topic::as_str);
        assert_eq!(topics.collect::<Vec<_>>(), ["web", "db"]);
        assert_eq!(authority.admit(None).unwrap().rights().names(), ["write"]);
        let upper = good().replace(ABC, &ABC.to_uppercase());
        assert_eq!(parse(&upper), parse(&good()));
    }

    #[test]
    fn what_cannot_be_used_is_one_line_that_says_what_and_where() {
        let with = |from: &str, to: &str| good().replace(from, to);
        for (text, part) in [
            (String::new(), "holds no [[token]]"),
            ("x".to_owned(), "line 1: "),
            (with("# Who", "who"), "line 1: "),
            (with("rights = [\"read\"]", "right = [\"read\"]"), "line 5: unknown field `right`"),
            (with("rights = [\"read\"]\n", ""), "missing field `rights`"),
            (with("[\"read\"]", "\"read\""), "line 5: "),
            (with("[\"read\"]", "[]"), "\"grafana\" has no right"),
            (with("\"read\"", "\"raed\""), "[[token]] 1 (\"grafana\"): one of its rights is none"),
            (with("[\"read\"]", "[\"read\", \"read\"]"), "stands there twice"),
            (with(ABC, &ABC[1..]), "63 characters stand there"),
            (with(ABC, &ABC.replace('b', "g")), "is no hash"),
            (with("\"db\"", "\"d b\""), "[[token]] 1 (\"grafana\"): one of its topics is none"),
            (with("\"db\"", "\"web\""), "topics are 1 to"),
            (with("[\"web\", \"db\"]", "[]"), "topics are 1 to"),
            (with("\"grafana\"", "\"\""), "[[token]] 1: its name is \"\""),
            (with("anonymous", "anybody"), "\"anybody\" has no sha256"),
            (with("grafana", "anonymous"), "the name of those who have no token"),
            (with("sha256", "cn"), "use sha256"),
            (
                format!("{}{}", good(), good().split("[[token]]\nname = \"anon").next().unwrap())
                    .replace("# Who may do what.\n", "")
                    .replacen("grafana", "other", 1),
                "have the same sha256",
            ),
        ] {
            let words = parse(&text).unwrap_err();
            assert!(words.contains(part) && !words.contains('\n'), "{text}\n{words}");
        }
        for misplaced in ["token = \"s3cret\"", "[[token]]\nname = \"a\"\nrights = [\"s3cret\"]"] {
            assert!(!parse(misplaced).unwrap_err().contains("s3cret"), "{misplaced}");
        }
        assert!(parse(&format!("{}sha256 = \"{EMPTY}\"\n", good())).is_err(), "anonymous has none");
    }

    #[test]
    fn a_change_holds_once_two_looks_have_found_it_and_what_is_broken_never_does() {
        let other = good().replace("grafana", "kibana");
        let half = other[..60].to_owned();
        let mut watched = Watched::new(good());
        assert_eq!(watched.look(Ok(good())), Step::Nothing);
        assert_eq!(watched.look(Ok(half.clone())), Step::Nothing, "it may be under way");
        assert_eq!(watched.look(Ok(other.clone())), Step::Nothing);
        assert_eq!(watched.look(Ok(other.clone())), Step::Take(parse(&other).unwrap()));
        assert_eq!(watched.look(Ok(other.clone())), Step::Nothing);
        for found in [Ok(half), Err("cannot be read: gone".to_owned())] {
            assert_eq!(watched.look(found.clone()), Step::Nothing);
            assert!(matches!(watched.look(found.clone()), Step::Broken(_)), "{found:?}");
            assert_eq!(watched.look(found), Step::Nothing, "told once");
        }
        assert_eq!(watched.look(Ok(other.clone())), Step::Mended);
        assert_eq!(watched.look(Ok(other)), Step::Nothing);
    }

    proptest! {
        /// `PROPTEST_CASES` runs more of them.
        #[test]
        fn fuzz_auth_files(
            text in "(\\[\\[token\\]\\]\n|(name|sha256|rights|topics|cn) ?= ?(\"[a-z0-9]{0,5}\"|\\[(\"(read|x)\",?){0,3}\\]|[0-9])\n|\\PC{0,8}\n){0,12}"
        ) {
            if let Err(words) = parse(&text) {
                prop_assert!(!words.contains('\n') && !words.is_empty());
            }
        }
    }
}
