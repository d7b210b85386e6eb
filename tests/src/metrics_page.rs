//! A strict reader of both text forms of metrics, for tests: it takes what the specifications
//! allow and nothing else, and says what is wrong with which line.
//!
//! Stricter than they are where a scraper would be puzzled: every family is described before its
//! samples, by HELP and TYPE; no name of a sample could belong to two families.

use std::collections::{BTreeMap, HashSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its whole name.
    pub name: String,
    /// Name and value, as they come.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

/// One family, as OpenMetrics or Prometheus calls it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Family {
    /// What stands behind its TYPE.
    pub kind: String,
    /// What stands behind its HELP.
    pub help: String,
    /// What stands behind its UNIT.
    pub unit: Option<String>,
    /// In the order of the page.
    pub samples: Vec<Sample>,
}

/// Families by name.
pub type Page = BTreeMap<String, Family>;

/// Reads a page of OpenMetrics 1.0.0 text.
pub fn read_open_metrics(text: &str) -> Result<Page, String> {
    let text = text.strip_suffix("# EOF\n").ok_or("no `# EOF` at the end")?;
    let page = read(text, true)?;
    for (name, family) in &page {
        if let Some(unit) = &family.unit
            && !name.ends_with(&format!("_{unit}"))
        {
            return Err(format!("{name} does not end in its unit {unit}"));
        }
    }
    Ok(page)
}

/// Reads a page of Prometheus text 0.0.4.
pub fn read_prometheus(text: &str) -> Result<Page, String> {
    read(text, false)
}

fn read(text: &str, is_open: bool) -> Result<Page, String> {
    let mut page = Page::new();
    let mut current = String::new();
    let body = text.strip_suffix('\n').ok_or("the last line does not end")?;
    for line in body.split('\n') {
        let wrong = |why: &str| format!("{why}: {line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let mut next = || parts.next().ok_or_else(|| wrong("a comment of too few words"));
            let (what, name, rest) = (next()?, next()?, next()?);
            check_name(name, ":").map_err(|why| wrong(&why))?;
            if name != current && page.contains_key(name) {
                return Err(wrong("a family in two places"));
            }
            name.clone_into(&mut current);
            let family = page.entry(current.clone()).or_default();
            if !family.samples.is_empty() {
                return Err(wrong("described behind its samples"));
            }
            let slot = match what {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" if is_open => family.unit.get_or_insert_default(),
                _ => return Err(wrong("neither HELP nor TYPE nor UNIT")),
            };
            if !slot.is_empty() || rest.is_empty() {
                return Err(wrong("said twice or empty"));
            }
            rest.clone_into(slot);
        } else {
            let sample = read_sample(line).map_err(|why| wrong(&why))?;
            let family = page.get_mut(&current).ok_or_else(|| wrong("before any family"))?;
            family.samples.push(sample);
        }
    }
    let mut owners = HashSet::new();
    for (name, family) in &page {
        check_family(name, family, is_open).map_err(|why| format!("{name}: {why}"))?;
        for suffix in suffixes(&family.kind, is_open)? {
            if !owners.insert(format!("{name}{suffix}")) {
                return Err(format!("{name}{suffix} belongs to two families"));
            }
        }
    }
    Ok(page)
}

/// What may stand behind a family's name in those of its samples.
fn suffixes(kind: &str, is_open: bool) -> Result<&'static [&'static str], String> {
    Ok(match (kind, is_open) {
        ("counter", true) => &["_total", "_created"],
        ("gauge" | "counter", _) | ("unknown", true) | ("untyped", false) => &[""],
        ("histogram", _) => &["_bucket", "_count", "_sum"],
        _ => return Err(format!("{kind:?} is no type of ours")),
    })
}

fn check_family(name: &str, family: &Family, is_open: bool) -> Result<(), String> {
    if family.help.is_empty() || family.kind.is_empty() {
        return Err("no HELP or no TYPE".into());
    }
    let is_total = name.ends_with("_total");
    if is_total != (family.kind == "counter" && !is_open) {
        return Err(format!("`_total` does not go with {} here", family.kind));
    }
    let mut seen = HashSet::new();
    for sample in &family.samples {
        let suffix = sample.name.strip_prefix(name).unwrap_or("?");
        if !suffixes(&family.kind, is_open)?.contains(&suffix) {
            return Err(format!("a sample {} is not of this family", sample.name));
        }
        let mut labels = sample.labels.clone();
        labels.sort_unstable();
        if !seen.insert((sample.name.clone(), labels)) {
            return Err(format!("{} twice with the same labels", sample.name));
        }
        let may_be_negative = family.kind != "counter" && family.kind != "histogram";
        if !may_be_negative && (sample.value.is_nan() || sample.value < 0.0) {
            return Err(format!("{} is {}", sample.name, sample.value));
        }
    }
    if family.kind == "histogram" { check_histogram(family) } else { Ok(()) }
}

/// Each label set has buckets that grow up to `+Inf`, which is as large as its count.
fn check_histogram(family: &Family) -> Result<(), String> {
    #[derive(Default)]
    struct Series {
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
        has_sum: bool,
    }
    let mut all: BTreeMap<Vec<(String, String)>, Series> = BTreeMap::new();
    for sample in &family.samples {
        let (bounds, labels): (Vec<_>, Vec<_>) =
            sample.labels.iter().cloned().partition(|(name, _)| name == "le");
        let series = all.entry(labels).or_default();
        if sample.name.ends_with("_bucket") {
            let [(_, bound)] = &bounds[..] else { return Err("a bucket without one `le`".into()) };
            let bound = read_number(bound).ok_or_else(|| format!("le is {bound:?}"))?;
            series.buckets.push((bound, sample.value));
        } else if !bounds.is_empty() {
            return Err(format!("{} has an `le`", sample.name));
        } else if sample.name.ends_with("_count") {
            series.count = Some(sample.value);
        } else {
            series.has_sum = true;
        }
    }
    for (labels, Series { buckets, count, has_sum }) in all {
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Err(format!("buckets of {labels:?} do not grow: {buckets:?}"));
        }
        let last = buckets.last().copied();
        if !has_sum || last.is_none() || last != count.map(|count| (f64::INFINITY, count)) {
            return Err(format!("{labels:?} ends with {last:?}, of {count:?}; sum: {has_sum}"));
        }
    }
    Ok(())
}

fn check_name(name: &str, also: &str) -> Result<(), String> {
    let fits = |at: usize, c: char| {
        c.is_ascii_alphabetic() || c == '_' || also.contains(c) || at > 0 && c.is_ascii_digit()
    };
    let is_name = !name.is_empty() && name.chars().enumerate().all(|(at, c)| fits(at, c));
    if is_name { Ok(()) } else { Err(format!("{name:?} is no name")) }
}

fn read_sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name, ":")?;
    let mut labels: Vec<(String, String)> = Vec::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (label, value) = inner.split_once("=\"").ok_or("a label without a value")?;
            check_name(label, "")?;
            let (value, behind) = read_quoted(value)?;
            if labels.iter().any(|(name, _)| name == label) {
                return Err(format!("{label} twice"));
            }
            labels.push((label.to_owned(), value));
            inner = match behind.strip_prefix(',') {
                Some(next) if !next.starts_with('}') => next,
                None if behind.starts_with('}') => behind,
                _ => return Err("labels without a comma between or one too many".into()),
            };
        }
        rest = &inner[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = read_number(value).ok_or_else(|| format!("{value:?} is no number"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its quote, and what is behind it.
fn read_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('\\' | '"'))) => c,
                other => return Err(format!("{other:?} is escaped")),
            }),
            c => value.push(c),
        }
    }
    Err("a label's value without an end".into())
}

fn read_number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            text.parse().ok().filter(|_| is_plain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 0\n\
        # HELP h_seconds H.\n# TYPE h_seconds histogram\n# UNIT h_seconds seconds\n\
        h_seconds_sum 3.5\nh_seconds_count 2\nh_seconds_bucket{le=\"0.5\"} 1\n\
        h_seconds_bucket{le=\"+Inf\"} 2\n# HELP g G.\n# TYPE g gauge\ng -1e3\n# EOF\n";

    #[test]
    fn a_good_page_is_read_and_every_fault_is_found() {
        let page = read_open_metrics(GOOD).unwrap();
        assert_eq!(page["a"].samples[0].labels, [("x".to_owned(), "1".to_owned())]);
        assert_eq!((page["g"].samples[0].value, page.len()), (-1000.0, 3));
        for (from, to) in [
            ("# EOF\n", ""),
            ("le=\"+Inf\"", "le=\"1.7976931348623157e308\""),
            ("{le=\"+Inf\"} 2", "{le=\"+Inf\"} 3"),
            ("{le=\"0.5\"} 1", "{le=\"0.5\"} 3"),
            ("h_seconds_sum 3.5\n", ""),
            ("# TYPE g gauge\n", ""),
            ("# HELP g G.\n", ""),
            ("g -1e3", "g"),
            ("g -1e3", "g 0x1"),
            ("g -1e3", "g_total 1"),
            ("g -1e3", "g{x=\"\"\",} 1"),
            ("g -1e3", "g{x=\"1\",} 1"),
            ("g -1e3", "g 1\ng 1"),
            ("a_total{x=\"2\"}", "a_total{x=\"1\"}"),
            ("a_total{x=\"1\"} 1", "a_total{x=\"1\"} -1"),
            ("a_total{x=\"1\"} 1", "a{x=\"1\"} 1"),
            ("seconds seconds", "seconds bytes"),
            ("# HELP g G.", "# HELP a_total G."),
            ("gauge", "thing"),
            ("g -1e3\n", "g -1e3\n\n"),
            ("g -1e3\n", "g -1e3\n# HELP a A.\n"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert!(bad != GOOD && read_open_metrics(&bad).is_err(), "{from} → {to}");
        }
        assert!(read_prometheus("# HELP a A.\n# TYPE a counter\na 1\n").is_err());
        assert!(read_prometheus("# HELP a_total A.\n# TYPE a_total counter\na_total 1\n").is_ok());
    }
}
