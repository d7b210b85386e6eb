//! Figures of a run: named values in order, as a table for people or one JSON object.
//!
//! Names carry their units: `_mb` is 10^6 bytes, `_us` microseconds.

use std::fmt::Write;

use serde_json::{Map, Value};

/// An ordered list of named figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<(String, Value)>,
}

impl Report {
    pub(crate) fn new(command: &str) -> Self {
        let mut report = Self::default();
        report.text("command", command);
        report
    }

    pub(crate) fn text(&mut self, name: &str, text: impl Into<String>) {
        self.rows.push((name.into(), Value::String(text.into())));
    }

    pub(crate) fn count(&mut self, name: &str, count: u64) {
        self.rows.push((name.into(), count.into()));
    }

    /// A measurement; four significant digits are kept.
    pub(crate) fn number(&mut self, name: &str, number: f64) {
        self.rows.push((name.into(), rounded(number).into()));
    }

    pub(crate) fn flag(&mut self, name: &str, flag: bool) {
        self.rows.push((name.into(), flag.into()));
    }

    /// The value of a row, for tests and derived rows.
    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.rows.iter().find(|(row, _)| row == name).map(|(_, value)| value)
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> String {
        let object: Map<String, Value> = self.rows.iter().cloned().collect();
        Value::Object(object).to_string()
    }

    /// A table, one row per line.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut table = String::new();
        for (name, value) in &self.rows {
            let shown = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // Writing to a string does not fail.
            let _ = writeln!(table, "{name:<width$}  {shown}");
        }
        table
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", self.json());
        } else {
            print!("{}", self.table());
        }
    }
}

fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi((3 - number.abs().log10().floor() as i32).max(0));
    (number * scale).round() / scale
}

/// The middle of some measurements; 0 if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// The smallest measurement that so many percent do not exceed; 0 if there are none.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_their_kind() {
        let mut report = Report::new("send");
        report.number("rate_mb_per_s", 1234.5678);
        report.number("small", 0.001_234_56);
        report.count("records", 7);
        report.flag("verified", true);
        assert_eq!(
            report.table(),
            "command        send\nrate_mb_per_s  1235.0\nsmall          0.001235\n\
             records        7\nverified       true\n"
        );
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["records"], 7);
        assert_eq!(json["verified"], true);
        assert_eq!(report.get("small"), Some(&Value::from(0.001_235)));
    }

    #[test]
    fn a_percentile_is_a_measurement() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let found = [50, 99, 100].map(|percent| percentile(&values, percent).to_string());
        assert_eq!(found, ["100", "198", "200"]);
        let few = [percentile(&[7.0], 99), percentile(&[], 99)].map(|value| value.to_string());
        assert_eq!(few, ["7", "0"]);
    }

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in
            [(&[3.0, 1.0, 2.0][..], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.5), (&[], 0.0)]
        {
            assert!((median(values) - middle).abs() < 1e-12, "{values:?}");
        }
    }
}
