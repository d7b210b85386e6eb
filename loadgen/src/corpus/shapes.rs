//! Finds what varies in a line of log: numbers, hexadecimal ids, UUIDs, IPv4 addresses, times of
//! day. Dates, years, single digits and digits inside words (`jk2_init`, `R23`) stay as they are.
//!
//! Invariants: fields lie inside the line, do not overlap, and ascend; a field is replaced by
//! text of its own width, so a varied line is as long as its sample.

use super::digits::DIGITS_MAX;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Decimal digits, the first not zero.
    Number,
    /// Decimal digits.
    Digits,
    HexLower,
    HexUpper,
    /// One of the four numbers of an IPv4 address.
    Octet,
    /// `hh?mm?ss`, eight bytes; the separators stay.
    TimeOfDay,
}

/// A span of a line that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) offset: u32,
    pub(crate) len: u16,
    pub(crate) kind: Kind,
}

/// Dates, which stay. `d` is a digit; what is behind `|` must follow but is not part of it.
const DATES: [&str; 6] =
    ["dddd-dd-dd", "dddd.dd.dd", "dddd/dd/dd", "dd/dd/dd", "dd-dd| dd:dd", "dd.dd| dd:dd"];
const TIMES: [&str; 2] = ["dd:dd:dd", "dd.dd.dd|.dddddd"];
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
/// A word of hexadecimal digits is an id from this length on.
const HEX_ID_LEN_MIN: usize = 6;
/// A number with letters behind it (`35ms`) varies if they are no more than this.
const UNIT_LEN_MAX: usize = 2;
const YEARS: std::ops::RangeInclusive<u32> = 1990..=2035;

/// Appends the fields of a line, in order.
pub(crate) fn find_fields(line: &[u8], fields: &mut Vec<Field>) {
    let mut at = 0;
    while at < line.len() {
        if !line[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        at += known_shape(line, at, fields).unwrap_or_else(|| word(line, at, fields));
    }
}

/// Takes a UUID, date, time or address that starts here; says how long it is.
fn known_shape(line: &[u8], at: usize, fields: &mut Vec<Field>) -> Option<usize> {
    if let Some(len) = uuid_len(&line[at..]) {
        let kind = hex_kind(&line[at..at + len])?;
        let mut offset = at;
        for group in UUID_GROUPS {
            fields.push(Field { offset: offset as u32, len: group as u16, kind });
            offset += group + 1;
        }
        return Some(len);
    }
    if let Some(len) = DATES.iter().find_map(|shape| shape_len(&line[at..], shape)) {
        return Some(len);
    }
    if let Some(len) = TIMES.iter().find_map(|shape| shape_len(&line[at..], shape)) {
        fields.push(Field { offset: at as u32, len: len as u16, kind: Kind::TimeOfDay });
        return Some(len);
    }
    ipv4(line, at, fields)
}

/// The length of `shape` if the text starts with it and no digit follows.
fn shape_len(text: &[u8], shape: &str) -> Option<usize> {
    let (mut len, mut at) = (None, 0);
    for &wanted in shape.as_bytes() {
        if wanted == b'|' {
            len = Some(at);
            continue;
        }
        let byte = *text.get(at)?;
        if if wanted == b'd' { !byte.is_ascii_digit() } else { byte != wanted } {
            return None;
        }
        at += 1;
    }
    if text.get(at).is_some_and(u8::is_ascii_digit) { None } else { Some(len.unwrap_or(at)) }
}

fn uuid_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (index, group) in UUID_GROUPS.into_iter().enumerate() {
        if index > 0 {
            if text.get(at) != Some(&b'-') {
                return None;
            }
            at += 1;
        }
        if !text.get(at..at + group)?.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        at += group;
    }
    if text.get(at).is_some_and(u8::is_ascii_alphanumeric) { None } else { Some(at) }
}

fn ipv4(line: &[u8], at: usize, fields: &mut Vec<Field>) -> Option<usize> {
    if matches!(line[..at], [.., b'0'..=b'9', b'.']) {
        return None;
    }
    let mut octets = [(0, 0); 4];
    let mut end = at;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            if line.get(end) != Some(&b'.') {
                return None;
            }
            end += 1;
        }
        let len = digits_len(&line[end..]);
        let value = parse(line.get(end..end + len)?).filter(|_| (1..=3).contains(&len))?;
        if value > 255 || (len > 1 && line[end] == b'0') {
            return None;
        }
        *octet = (end, len);
        end += len;
    }
    let goes_on = line.get(end).is_some_and(u8::is_ascii_alphanumeric)
        || (line.get(end) == Some(&b'.') && line.get(end + 1).is_some_and(u8::is_ascii_digit));
    if goes_on {
        return None;
    }
    fields.extend(octets.map(|(offset, len)| Field {
        offset: offset as u32,
        len: len as u16,
        kind: Kind::Octet,
    }));
    Some(end - at)
}

/// Takes one word of letters and digits; says how long it is.
fn word(line: &[u8], at: usize, fields: &mut Vec<Field>) -> usize {
    let rest = &line[at..];
    let len = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let word = &rest[..len];
    let digits = digits_len(word);
    if digits == len {
        if !is_year(word) && !is_compact_date(word) && !is_day_of_month(line, at, len) {
            push_number(at, word, fields);
        }
    } else if word.len() > 2 && word[0] == b'0' && word[1] | 0x20 == b'x' {
        if let Some(kind) = hex_kind(&word[2..]) {
            push_hex(at + 2, len - 2, kind, fields);
        }
    } else if len >= HEX_ID_LEN_MIN && word.iter().any(u8::is_ascii_digit) {
        if let Some(kind) = hex_kind(word) {
            push_hex(at, len, kind, fields);
        }
    } else if len - digits <= UNIT_LEN_MAX && word[digits..].iter().all(u8::is_ascii_alphabetic) {
        push_number(at, &word[..digits], fields);
    }
    len
}

/// Single digits and leading zeros stay: they are flags, levels and padding.
fn push_number(at: usize, digits: &[u8], fields: &mut Vec<Field>) {
    let zeros = digits.iter().take_while(|&&byte| byte == b'0').count();
    if digits.len() < 2 {
        return;
    }
    let mut kind = Kind::Number;
    for part in digits[zeros..].chunks(DIGITS_MAX).scan(at + zeros, |offset, part| {
        let start = *offset;
        *offset += part.len();
        Some((start, part.len()))
    }) {
        fields.push(Field { offset: part.0 as u32, len: part.1 as u16, kind });
        kind = Kind::Digits;
    }
}

fn push_hex(at: usize, len: usize, kind: Kind, fields: &mut Vec<Field>) {
    let mut offset = at;
    while offset < at + len {
        let part = (at + len - offset).min(usize::from(u16::MAX));
        fields.push(Field { offset: offset as u32, len: part as u16, kind });
        offset += part;
    }
}

/// Which alphabet the text uses, dashes apart; `None` if it is not hexadecimal or mixes cases.
fn hex_kind(text: &[u8]) -> Option<Kind> {
    let hex = text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let upper = text.iter().any(u8::is_ascii_uppercase);
    let lower = text.iter().any(u8::is_ascii_lowercase);
    match (hex, upper, lower) {
        (false, ..) | (_, true, true) => None,
        (true, true, false) => Some(Kind::HexUpper),
        (true, false, _) => Some(Kind::HexLower),
    }
}

fn is_year(word: &[u8]) -> bool {
    word.len() == 4 && parse(word).is_some_and(|value| YEARS.contains(&value))
}

/// `20171223`
fn is_compact_date(word: &[u8]) -> bool {
    let part = |range| parse(&word[range]);
    word.len() == 8
        && is_year(&word[..4])
        && part(4..6).is_some_and(|month| (1..=12).contains(&month))
        && part(6..8).is_some_and(|day| (1..=31).contains(&day))
}

fn is_day_of_month(line: &[u8], at: usize, len: usize) -> bool {
    let before = line[..at].trim_ascii_end();
    len <= 2 && at > before.len() && MONTHS.iter().any(|month| before.ends_with(month))
}

fn digits_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn parse(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The line with each field's bytes replaced by a letter for its kind.
    fn marked(line: &str) -> String {
        let mut fields = Vec::new();
        find_fields(line.as_bytes(), &mut fields);
        let mut bytes = line.as_bytes().to_vec();
        for field in fields {
            let mark = match field.kind {
                Kind::Number => b'N',
                Kind::Digits => b'D',
                Kind::HexLower => b'h',
                Kind::HexUpper => b'H',
                Kind::Octet => b'O',
                Kind::TimeOfDay => b'T',
            };
            let start = field.offset as usize;
            bytes[start..start + usize::from(field.len)].fill(mark);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn fields_of_real_lines_are_found() {
        for (line, expected) in [
            (
                "Dec 10 06:55:46 LabSZ sshd[24200]: rhost=173.234.31.186 ",
                "Dec 10 TTTTTTTT LabSZ sshd[NNNNN]: rhost=OOO.OOO.OO.OOO ",
            ),
            (
                "[Sun Dec 04 04:51:09 2005] [notice] jk2_init() Found child 6728 in slot 6",
                "[Sun Dec 04 TTTTTTTT 2005] [notice] jk2_init() Found child NNNN in slot 6",
            ),
            (
                "081109 204106 329 INFO for block blk_-6670958622368987959 terminating",
                "0NNNNN NNNNNN NNN INFO for block blk_-NNNNNNNNNNNNNNNNNND terminating",
            ),
            (
                "- 1117842440 2005.06.03 R23-M0 2005-06-03-16.47.20.730545 core.1165",
                "- NNNNNNNNNN 2005.06.03 R23-M0 2005-06-03-TTTTTTTT.NNNNNN core.NNNN",
            ),
            (
                "id=3F2504E0-4F89-11D3-9A0C-0305E82C3301 uid=0 took 35ms",
                "id=HHHHHHHH-HHHH-HHHH-HHHH-HHHHHHHHHHHH uid=0 took NNms",
            ),
            (
                "03-17 16:13:38.859  2227 D Text 0x00ff deadbeef42 facade x509cert",
                "03-17 TTTTTTTT.NNN  NNNN D Text 0xhhhh hhhhhhhhhh facade x509cert",
            ),
            ("20171223-22:15:29:635|30002312", "20171223-TTTTTTTT:NNN|NNNNNNNN"),
            ("v 1.2.3.4.5 and 10.0.0.256", "v 1.2.3.4.5 and NN.0.0.NNN"),
        ] {
            assert_eq!(marked(line), expected);
        }
    }

    proptest! {
        #[test]
        fn fields_ascend_inside_the_line(line in "[ a-f0-9x.:/-]{0,60}") {
            let mut fields = Vec::new();
            find_fields(line.as_bytes(), &mut fields);
            let mut end = 0;
            for field in fields {
                prop_assert!(field.offset >= end && field.len > 0);
                end = field.offset + u32::from(field.len);
            }
            prop_assert!(end as usize <= line.len());
        }
    }
}
