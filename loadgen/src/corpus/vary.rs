//! Varied lines: samples of real logs whose numbers, ids, addresses and times are drawn anew.
//!
//! Files take turns in bursts of consecutive lines, each in proportion to its size, as a host
//! with many services writes them. Invariants: the output is a function of samples and seed; a
//! varied line is exactly as long as its sample; nothing is allocated per line.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memchr;

use super::clock::LogClock;
use super::digits::{random_hex, random_number};
use super::shapes::{Field, Kind, find_fields};
use crate::failure::{Context, Failure, Result};
use crate::rng::Rng;

/// All samples together are kept in memory and must fit in this.
const SAMPLE_BYTES_MAX: u64 = 256 << 20;
/// Consecutive lines of one file before another takes its turn.
const BURST_LINES_MAX: u64 = 16;
/// The corpus clock moves at most this much per burst.
const BURST_MS_MAX: u64 = 20;

/// Lines to vary, with the places where they vary.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    files: Vec<Sample>,
    lines: u64,
}

#[derive(Debug, Default)]
struct Sample {
    /// Whole lines, each with its newline.
    text: Vec<u8>,
    lines: Vec<Line>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    text_end: u32,
    fields_end: u32,
}

impl Samples {
    /// Reads files, and the files of directories in order of name (those called `*.log` or
    /// `*.txt`). A carriage return before a newline is dropped unless `keep_cr`.
    pub(crate) fn read(paths: &[PathBuf], keep_cr: bool) -> Result<Self> {
        let mut samples = Self::default();
        let mut total = 0;
        for path in expand(paths)? {
            let bytes = fs::read(&path).context(|| format!("reading {}", path.display()))?;
            total += bytes.len() as u64;
            if total > SAMPLE_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "samples are more than {SAMPLE_BYTES_MAX} bytes: vary fewer or smaller files"
                )));
            }
            samples.add(&bytes, keep_cr);
        }
        if samples.lines == 0 {
            return Err(Failure::usage("the samples hold no line"));
        }
        Ok(samples)
    }

    /// Adds the lines of one file.
    fn add(&mut self, bytes: &[u8], keep_cr: bool) {
        let mut sample = Sample::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            let line = line.strip_suffix(b"\r").filter(|_| !keep_cr).unwrap_or(line);
            find_fields(line, &mut sample.fields);
            sample.text.extend_from_slice(line);
            sample.text.push(b'\n');
            sample.lines.push(Line {
                text_end: sample.text.len() as u32,
                fields_end: sample.fields.len() as u32,
            });
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        if !sample.lines.is_empty() {
            self.lines += sample.lines.len() as u64;
            self.files.push(sample);
        }
    }
}

fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).context(|| format!("listing {}", path.display()))? {
            entries.push(entry.context(|| format!("listing {}", path.display()))?.path());
        }
        entries.retain(|entry| is_log(entry));
        entries.sort();
        if entries.is_empty() {
            return Err(Failure::usage(format!("{} holds no *.log or *.txt", path.display())));
        }
        files.extend(entries);
    }
    Ok(files)
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log" || extension == "txt")
}

/// Draws lines without end.
#[derive(Debug)]
pub(crate) struct Varier {
    samples: Arc<Samples>,
    rng: Rng,
    clock: LogClock,
    /// The next line of each file.
    cursors: Vec<usize>,
    file: usize,
    burst_left: u64,
}

impl Varier {
    pub(crate) fn new(samples: Arc<Samples>, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let cursors =
            samples.files.iter().map(|file| rng.below(file.lines.len() as u64) as usize).collect();
        Self { samples, rng, clock: LogClock::new(), cursors, file: 0, burst_left: 0 }
    }

    /// Appends one line with its newline.
    #[inline]
    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        if self.burst_left == 0 {
            self.start_burst();
        }
        self.burst_left -= 1;
        let sample = &self.samples.files[self.file];
        let cursor = &mut self.cursors[self.file];
        let index = *cursor;
        *cursor = if index + 1 == sample.lines.len() { 0 } else { index + 1 };
        let line = sample.lines[index];
        let (text_start, fields_start) = match index.checked_sub(1) {
            Some(before) => {
                let before = sample.lines[before];
                (before.text_end as usize, before.fields_end as usize)
            }
            None => (0, 0),
        };
        let start = out.len();
        out.extend_from_slice(&sample.text[text_start..line.text_end as usize]);
        let copy = &mut out[start..];
        for field in &sample.fields[fields_start..line.fields_end as usize] {
            let offset = field.offset as usize;
            let span = &mut copy[offset..offset + usize::from(field.len)];
            redraw(span, field.kind, &mut self.rng, &self.clock);
        }
    }

    fn start_burst(&mut self) {
        let mut line = self.rng.below(self.samples.lines);
        for (index, file) in self.samples.files.iter().enumerate() {
            let lines = file.lines.len() as u64;
            if line < lines {
                self.file = index;
                break;
            }
            line -= lines;
        }
        self.burst_left = 1 + self.rng.below(BURST_LINES_MAX);
        self.clock.advance(self.rng.below(BURST_MS_MAX));
    }
}

#[inline]
fn redraw(span: &mut [u8], kind: Kind, rng: &mut Rng, clock: &LogClock) {
    match kind {
        Kind::Number => random_number(span, rng, false),
        Kind::Digits => random_number(span, rng, true),
        Kind::HexLower => random_hex(span, rng, b"0123456789abcdef"),
        Kind::HexUpper => random_hex(span, rng, b"0123456789ABCDEF"),
        Kind::Octet => {
            let (least, limit) = match span.len() {
                1 => (0, 10),
                2 => (10, 90),
                _ => (100, 156),
            };
            super::digits::write_digits(span, least + rng.below(limit));
        }
        Kind::TimeOfDay => {
            let time = clock.time_of_day();
            for start in [0, 3, 6] {
                span[start..start + 2].copy_from_slice(&time[start..start + 2]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(files: &[&str]) -> Arc<Samples> {
        let mut samples = Samples::default();
        for file in files {
            samples.add(file.as_bytes(), false);
        }
        Arc::new(samples)
    }

    fn draw(samples: &Arc<Samples>, seed: u64, lines: usize) -> Vec<u8> {
        let mut varier = Varier::new(Arc::clone(samples), seed);
        let mut out = Vec::new();
        (0..lines).for_each(|_| varier.append(&mut out));
        out
    }

    /// Digits and hexadecimal letters of ids as one letter, so that only the shape is left.
    fn shape(line: &[u8]) -> Vec<u8> {
        line.iter().map(|byte| if byte.is_ascii_digit() { b'#' } else { *byte }).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_bytes_and_another_seed_others() {
        let samples = samples(&["a 12345 b 10.20.30.40\n", "x 99 y\nz\n"]);
        assert_eq!(draw(&samples, 1, 100), draw(&samples, 1, 100));
        assert_ne!(draw(&samples, 1, 100), draw(&samples, 2, 100));
    }

    #[test]
    fn lines_keep_their_shape_their_order_and_their_count() {
        let text = "GET /a/123 10:11:12 200\nsecond line 9\n\nlast 4567 without newline";
        let samples = samples(&[text]);
        let drawn = draw(&samples, 3, 400);
        assert_eq!(memchr::memchr_iter(b'\n', &drawn).count(), 400);
        let shapes: Vec<_> = text.split('\n').map(|line| shape(line.as_bytes())).collect();
        let lines: Vec<_> = drawn[..drawn.len() - 1].split(|&byte| byte == b'\n').collect();
        let first = shapes.iter().position(|wanted| *wanted == shape(lines[0])).unwrap();
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(shape(line), shapes[(first + index) % shapes.len()], "line {index}");
        }
    }

    #[test]
    fn numbers_ids_and_addresses_do_vary() {
        let sample = "n 4711 id 0123456789abcdef ip 192.168.1.77 \
                    u 123e4567-e89b-12d3-a456-426614174000\n";
        let samples = samples(&[sample]);
        let drawn = draw(&samples, 5, 50);
        let mut columns: [std::collections::BTreeSet<Vec<u8>>; 4] = Default::default();
        for line in drawn.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
            assert_eq!(line.len() + 1, sample.len(), "{}", String::from_utf8_lossy(line));
            for (column, word) in columns.iter_mut().zip([1, 3, 5, 7]) {
                column.insert(words[word].to_vec());
            }
        }
        assert!(columns.iter().all(|column| column.len() > 45), "{columns:?}");
        for address in &columns[2] {
            let octets: Vec<u32> = std::str::from_utf8(address)
                .unwrap()
                .split('.')
                .map(|octet| octet.parse().unwrap())
                .collect();
            assert!(octets.len() == 4 && octets.iter().all(|&octet| octet < 256));
        }
    }

    #[test]
    fn carriage_returns_go_unless_they_are_wanted() {
        let mut samples = Samples::default();
        samples.add(b"a\r\nb\r\n", false);
        samples.add(b"a\r\n", true);
        assert_eq!(samples.files[0].text, b"a\nb\n");
        assert_eq!(samples.files[1].text, b"a\r\n");
    }
}
