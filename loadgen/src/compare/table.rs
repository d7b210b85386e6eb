//! The result as a Markdown table or a JSON object; pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::series::{Series, short};

/// The same figure of something else, measured in turn.
#[derive(Debug, Clone)]
pub(crate) struct Against {
    pub(crate) name: &'static str,
    pub(crate) runs: Series,
}

/// One figure and what it is held against.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Series,
    pub(crate) against: Vec<Against>,
    /// Further figures of the same runs.
    pub(crate) figures: Vec<(&'static str, Series)>,
    pub(crate) remarks: Vec<String>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, ours: Series) -> Self {
        Self { what: what.into(), unit, ours, ..Self::default() }
    }

    #[must_use]
    pub(crate) fn against(mut self, name: &'static str, runs: Series) -> Self {
        if !runs.is_empty() {
            self.against.push(Against { name, runs });
        }
        self
    }

    #[must_use]
    pub(crate) fn figure(mut self, name: &'static str, runs: Series) -> Self {
        if !runs.is_empty() {
            self.figures.push((name, runs));
        }
        self
    }

    #[must_use]
    pub(crate) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remarks.push(remark.into());
        self
    }
}

/// All rows, and what they were measured on.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let facts: Vec<_> =
            self.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{}. Medians; in parentheses the lowest and the highest.\n",
            facts.join("; ")
        );
        text.push_str("| what | oklogd | held against | ratio | more |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            let against: Vec<_> = row
                .against
                .iter()
                .map(|other| format!("{} {}", other.name, spread(&other.runs)))
                .collect();
            let ratios: Vec<_> = row.against.iter().map(|other| ratio(&row.ours, other)).collect();
            let mut more: Vec<_> =
                row.figures.iter().map(|(name, runs)| format!("{name} {}", spread(runs))).collect();
            more.extend(row.remarks.iter().cloned());
            let ours = if row.ours.is_empty() {
                "–".to_string()
            } else {
                format!("{} {}", spread(&row.ours), row.unit)
            };
            let cells = [
                row.what.clone(),
                ours.trim_end().to_string(),
                or_dash(against.join("<br>")),
                or_dash(ratios.join("<br>")),
                more.join("; "),
            ];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let runs = |runs: &Series| json!({ "median": runs.median(), "min": runs.min(), "max": runs.max(), "runs": runs.runs() });
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let against: Vec<_> = row
                    .against
                    .iter()
                    .map(|other| json!({ "name": other.name, "value": runs(&other.runs) }))
                    .collect();
                let figures: Vec<_> = row
                    .figures
                    .iter()
                    .map(|(name, value)| json!({ "name": name, "value": runs(value) }))
                    .collect();
                json!({
                    "what": row.what, "unit": row.unit, "value": runs(&row.ours),
                    "against": against, "figures": figures, "remarks": row.remarks,
                })
            })
            .collect();
        let facts: serde_json::Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| ((*name).to_string(), value.clone().into()))
            .collect();
        json!({ "command": "compare", "facts": facts, "rows": rows })
    }
}

fn spread(runs: &Series) -> String {
    let middle = short(runs.median());
    if runs.runs().len() < 2 {
        return middle;
    }
    format!("{middle} ({}–{})", short(runs.min()), short(runs.max()))
}

fn ratio(ours: &Series, other: &Against) -> String {
    let theirs = other.runs.median();
    if ours.is_empty() || theirs <= 0.0 {
        return "–".into();
    }
    format!("{}×", short(ours.median() / theirs))
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "–".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        let mut series = Series::default();
        for value in values {
            series.push(*value);
        }
        series
    }

    fn table() -> Table {
        let fast = Row::new("fast, 4 connections", "MB/s", series(&[1200.0, 1000.0, 1100.0]))
            .against("sink", series(&[2000.0, 2200.0, 2300.0]))
            .figure("CPU-s/GB", series(&[0.62]));
        let needle = Row::new("`a|b`", "ms", series(&[12.3]))
            .against("rg", series(&[315.0]))
            .against("zstd -dc | rg", series(&[1600.0]))
            .remark("98.9 % skipped");
        let alone = Row::new("skipped", "ms", Series::default()).remark("no rg");
        Table {
            facts: vec![("cores", "2".into()), ("rounds", "3".into())],
            rows: vec![fast, needle, alone],
        }
    }

    #[test]
    fn a_row_shows_medians_ratios_and_noise() {
        assert_eq!(
            table().markdown(),
            "cores: 2; rounds: 3. Medians; in parentheses the lowest and the highest.\n\n\
             | what | oklogd | held against | ratio | more |\n|---|---|---|---|---|\n\
             | fast, 4 connections | 1100 (1000–1200) MB/s | sink 2200 (2000–2300) | 0.500× | CPU-s/GB 0.620 |\n\
             | `a\\|b` | 12.3 ms | rg 315<br>zstd -dc \\| rg 1600 | 0.039×<br>0.008× | 98.9 % skipped |\n\
             | skipped | – | – | – | no rg |\n"
        );
    }

    #[test]
    fn the_json_holds_every_run() {
        let json = table().json();
        assert_eq!(json["rows"][0]["value"]["runs"], json!([1200.0, 1000.0, 1100.0]));
        assert_eq!(json["rows"][0]["against"][0]["value"]["median"], json!(2200.0));
        assert_eq!(json["facts"]["cores"], "2");
    }
}
