//! The two text forms in which metrics are told, and which of them a scraper asked for.
//!
//! The registry writes OpenMetrics; the Prometheus text format 0.0.4 is made of that: a counter's
//! family is named as its samples are (`_total`), an unknown type is `untyped`, and there are
//! neither units nor an end.
//!
//! Sources: <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// A text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text format 0.0.4, for whoever does not ask for the other.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What the values of `Accept` ask for: OpenMetrics where it is named and nothing that stands
    /// for the other form is liked better.
    pub fn asked_for<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0, 0);
        for range in accept.into_iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            let liked = match kind.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => &mut open,
                "text/plain" | "text/*" => &mut text,
                _ => continue,
            };
            *liked = weight.max(*liked);
        }
        if open > 0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// This form of a page in OpenMetrics.
    pub fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => prometheus(&open_metrics),
        }
    }
}

/// A weight of `Accept` as thousandths; one that cannot be read is 0.
fn thousandths(weight: &str) -> u32 {
    let weight = weight.parse::<f64>().unwrap_or_default();
    (weight.clamp(0.0, 1.0) * 1000.0) as u32
}

fn prometheus(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut described = open_metrics.lines().peekable();
    while let Some(line) = described.next() {
        // The registry writes HELP, then TYPE, of each family.
        if let Some(help) = line.strip_prefix("# HELP ") {
            let kind = described.peek().and_then(|line| line.strip_prefix("# TYPE "));
            let is_counter = kind.is_some_and(|kind| kind.ends_with(" counter"));
            describe(&mut out, "# HELP ", help, is_counter);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let kind = kind.strip_suffix(" unknown").map(|name| format!("{name} untyped"));
            let kind = kind.as_deref().unwrap_or(&line["# TYPE ".len()..]);
            describe(&mut out, "# TYPE ", kind, kind.ends_with(" counter"));
        } else if !line.starts_with("# ") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// A line about a family: its name, and the rest.
fn describe(out: &mut String, start: &str, line: &str, is_counter: bool) {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let suffix = if is_counter { "_total" } else { "" };
    for part in [start, name, suffix, " ", rest, "\n"] {
        out.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        use Exposition::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            (&[][..], Prometheus),
            (&["*/*"], Prometheus),
            (&["text/plain"], Prometheus),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Prometheus),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["Application/OpenMetrics-Text; version=1.0.0"], OpenMetrics),
            (
                &["text/plain;q=0.4", "application/openmetrics-text;version=1.0.0;q=0.5"],
                OpenMetrics,
            ),
            (&["text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.3"], Prometheus),
            (&["application/openmetrics-text;q=0"], Prometheus),
            (&["application/openmetrics-text;q=x"], Prometheus),
            // What Prometheus 2 sends.
            (
                &["application/openmetrics-text;version=1.0.0;q=0.5,\
                   application/openmetrics-text;version=0.0.1;q=0.4,\
                   text/plain;version=0.0.4;q=0.3,*/*;q=0.1"],
                OpenMetrics,
            ),
        ] {
            assert_eq!(Exposition::asked_for(accept.iter().copied()), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_counter_is_called_as_its_samples_are() {
        let open = "# HELP a_bytes Taken.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{x=\"# HELP y\"} 1\n# HELP g A gauge.\n# TYPE g unknown\ng 2\n# EOF\n";
        let expected = "# HELP a_bytes_total Taken.\n# TYPE a_bytes_total counter\n\
                        a_bytes_total{x=\"# HELP y\"} 1\n# HELP g A gauge.\n# TYPE g untyped\ng 2\n";
        assert_eq!(Exposition::Prometheus.of(open.to_owned()), expected);
        assert_eq!(Exposition::OpenMetrics.of(open.to_owned()), open);
    }
}
