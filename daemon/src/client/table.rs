//! Columns for people.
//!
//! Pure. Invariants: a column is as wide as its widest cell; no line ends in spaces; what a terminal would
//! obey is escaped.

use super::printer::escape;

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Lines of these rows, two spaces between columns.
pub(super) fn lines<const N: usize>(sides: [Side; N], rows: &[[String; N]]) -> String {
    let cell = |text: &String| {
        let mut shown = Vec::new();
        escape(&mut shown, text.as_bytes());
        String::from_utf8_lossy(&shown).into_owned()
    };
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(cell)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((text, side), width) in row.iter().zip(sides).zip(widths) {
            let padding = " ".repeat(width - text.chars().count());
            match side {
                Side::Left => line.extend([text.as_str(), &padding, "  "]),
                Side::Right => line.extend([&padding, text.as_str(), "  "]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Bytes as people read them: three digits that count.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.5 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "N", ""], ["long", "7", "x"], ["\u{e9}\u{1b}", "1234", ""]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let expected = "A         N\nlong      7  x\n\u{e9}\\x1b  1234\n";
        assert_eq!(lines([Side::Left, Side::Right, Side::Left], &rows), expected);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_400, "100 KiB"),
            (1_048_064, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
