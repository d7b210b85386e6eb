//! Lines from templates of our own, for machines that hold no sample.
//!
//! Invariants: the output is a function of the chosen systems and the seed; nothing is allocated
//! per line; templates are parsed once, and one that does not parse is an error, not a panic.

use std::sync::Arc;

use super::clock::LogClock;
use super::digits::{push_number, random_hex, random_number, write_digits};
use super::template_texts::SYSTEMS;
use crate::failure::{Failure, Result};
use crate::rng::Rng;

/// The corpus clock moves at most this much per entry.
const STEP_MS_MAX: u64 = 3;

/// Parsed templates.
#[derive(Debug)]
pub(crate) struct Templates {
    systems: Vec<Vec<Entry>>,
}

type Entry = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(&'static str),
    Number { least: u64, count: u64 },
    Hex(usize),
    Pick(Vec<&'static str>),
    Ip,
    Uuid,
    Iso,
    Java,
    Clf,
    Syslog,
    Klog,
    Uptime,
}

impl Templates {
    /// The templates of the named systems; all of them when no name is given.
    pub(crate) fn of(names: &[String]) -> Result<Self> {
        let known = || SYSTEMS.map(|(name, _)| name).join(", ");
        let mut systems = Vec::new();
        for name in names {
            if !SYSTEMS.iter().any(|(known, _)| known == name) {
                return Err(Failure::usage(format!(
                    "no templates `{name}`: there are {}",
                    known()
                )));
            }
        }
        for (name, texts) in SYSTEMS {
            if names.is_empty() || names.iter().any(|wanted| wanted == name) {
                let entries: Result<Vec<Entry>> = texts.iter().map(|text| parse(text)).collect();
                systems.push(entries?);
            }
        }
        Ok(Self { systems })
    }
}

fn parse(text: &'static str) -> Result<Entry> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("%{") {
        let (field, after) = behind
            .split_once('}')
            .ok_or_else(|| Failure::run(format!("template `{text}`: a field has no end")))?;
        pieces.push(Piece::Text(before));
        pieces.push(
            parse_field(field)
                .ok_or_else(|| Failure::run(format!("template `{text}`: no field `{field}`")))?,
        );
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces.push(Piece::Text("\n"));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

fn parse_field(field: &'static str) -> Option<Piece> {
    Some(match field.split_once(':') {
        Some(("int", range)) => {
            let (least, most) = range.split_once('-')?;
            let (least, most) = (least.parse::<u64>().ok()?, most.parse::<u64>().ok()?);
            Piece::Number { least, count: most.checked_sub(least)?.checked_add(1)? }
        }
        Some(("hex", digits)) => Piece::Hex(digits.parse().ok().filter(|&digits| digits > 0)?),
        Some(("pick", words)) => Piece::Pick(words.split('|').collect()),
        Some(_) => return None,
        None => match field {
            "ip" => Piece::Ip,
            "uuid" => Piece::Uuid,
            "iso" => Piece::Iso,
            "java" => Piece::Java,
            "clf" => Piece::Clf,
            "syslog" => Piece::Syslog,
            "klog" => Piece::Klog,
            "uptime" => Piece::Uptime,
            _ => return None,
        },
    })
}

/// Draws entries without end.
#[derive(Debug)]
pub(crate) struct TemplateWriter {
    templates: Arc<Templates>,
    rng: Rng,
    clock: LogClock,
}

impl TemplateWriter {
    pub(crate) fn new(templates: Arc<Templates>, seed: u64) -> Self {
        Self { templates, rng: Rng::new(seed), clock: LogClock::new() }
    }

    /// Appends one entry: one line, or several that belong together, each with its newline.
    #[inline]
    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        self.clock.advance(self.rng.below(STEP_MS_MAX + 1));
        let Self { templates, rng, clock } = self;
        let systems = &templates.systems;
        let entries = &systems[rng.below(systems.len() as u64) as usize];
        for piece in &entries[rng.below(entries.len() as u64) as usize] {
            append_piece(out, piece, rng, clock);
        }
    }
}

#[inline]
fn append_piece(out: &mut Vec<u8>, piece: &Piece, rng: &mut Rng, clock: &LogClock) {
    match piece {
        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
        Piece::Number { least, count } => push_number(out, least + rng.below(*count)),
        Piece::Hex(digits) => push_hex(out, *digits, rng),
        Piece::Pick(words) => {
            let word = words[rng.below(words.len() as u64) as usize];
            out.extend_from_slice(word.as_bytes());
        }
        Piece::Ip => {
            let bits = rng.next();
            for octet in 0..4 {
                push_number(out, (bits >> (8 * octet)) & 255);
                out.push(b'.');
            }
            out.pop();
        }
        Piece::Uuid => {
            for (index, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
                if index > 0 {
                    out.push(b'-');
                }
                push_hex(out, digits, rng);
            }
        }
        Piece::Iso | Piece::Java => push_iso(out, *piece == Piece::Java, clock),
        Piece::Clf => out.extend_from_slice(&clock.clf),
        Piece::Syslog => out.extend_from_slice(&clock.syslog),
        Piece::Klog => {
            let iso = &clock.iso;
            out.extend_from_slice(&iso[5..7]);
            out.extend_from_slice(&iso[8..10]);
            out.push(b' ');
            out.extend_from_slice(&iso[11..]);
            push_micros(out, clock.millisecond(), rng);
        }
        Piece::Uptime => {
            let seconds = clock.uptime_ms() / 1000;
            let start = out.len();
            out.extend_from_slice(b"     ");
            let digits = seconds.checked_ilog10().map_or(1, |log| log as usize + 1).min(5);
            write_digits(&mut out[start + 5 - digits..], seconds);
            push_micros(out, clock.uptime_ms() % 1000, rng);
        }
    }
}

fn push_iso(out: &mut Vec<u8>, java: bool, clock: &LogClock) {
    let start = out.len();
    out.extend_from_slice(&clock.iso);
    out.extend_from_slice(if java { b",000" } else { b".000Z" });
    write_digits(&mut out[start + 20..start + 23], clock.millisecond());
    if java {
        out[start + 10] = b' ';
    }
}

fn push_micros(out: &mut Vec<u8>, millisecond: u64, rng: &mut Rng) {
    let start = out.len();
    out.extend_from_slice(b".000000");
    write_digits(&mut out[start + 1..start + 4], millisecond);
    random_number(&mut out[start + 4..], rng, true);
}

fn push_hex(out: &mut Vec<u8>, digits: usize, rng: &mut Rng) {
    let start = out.len();
    out.resize(start + digits, b'0');
    random_hex(&mut out[start..], rng, b"0123456789abcdef");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(names: &[&str], seed: u64, entries: usize) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut writer = TemplateWriter::new(Arc::new(Templates::of(&names).unwrap()), seed);
        let mut out = Vec::new();
        (0..entries).for_each(|_| writer.append(&mut out));
        out
    }

    #[test]
    fn every_template_parses_and_leaves_no_field_behind() {
        let out = String::from_utf8(draw(&[], 1, 5000)).unwrap();
        assert!(!out.contains("%{") && out.ends_with('\n'));
        assert!(out.lines().all(|line| !line.is_empty()));
    }

    #[test]
    fn the_same_seed_draws_the_same_bytes_and_another_seed_others() {
        assert_eq!(draw(&["web", "java"], 9, 200), draw(&["web", "java"], 9, 200));
        assert_ne!(draw(&["web", "java"], 9, 200), draw(&["web", "java"], 10, 200));
    }

    #[test]
    fn each_system_has_its_marks() {
        for (name, mark) in [
            ("web", "HTTP/"),
            ("sshd", " sshd["),
            ("kernel", "["),
            ("database", " UTC ["),
            ("kubernetes", ".go:"),
            ("json", "{\""),
            ("proxy", " haproxy["),
            ("mail", " postfix/"),
        ] {
            let out = String::from_utf8(draw(&[name], 3, 300)).unwrap();
            assert!(out.lines().all(|line| line.contains(mark)), "{name}");
        }
        let java = String::from_utf8(draw(&["java"], 3, 300)).unwrap();
        assert!(java.contains("\n\tat com.example."), "stack traces are records of their own");
    }

    #[test]
    fn a_json_line_is_json() {
        let out = String::from_utf8(draw(&["json"], 4, 300)).unwrap();
        for line in out.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn unknown_systems_are_named() {
        let failure = Templates::of(&["vax".into()]).unwrap_err();
        assert!(failure.message.contains("`vax`") && failure.message.contains("kubernetes"));
    }

    #[test]
    fn a_broken_template_is_an_error() {
        for text in ["%{int:9-1}", "%{hex:0}", "%{what}", "%{ip", "%{int:a-b}", "%{x:y}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
