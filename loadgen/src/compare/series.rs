//! Repeated measurements of one figure.

use crate::report::median;

/// Measurements in the order they were made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn of(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn runs(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.0)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().reduce(f64::max).unwrap_or(0.0)
    }
}

/// Three significant digits, without an exponent.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_a_middle_and_bounds() {
        let mut series = Series::of(3.0);
        series.push(1.0);
        series.push(2.0);
        let shown = [series.min(), series.median(), series.max()].map(short);
        assert_eq!(shown, ["1.00", "2.00", "3.00"]);
    }

    #[test]
    fn figures_are_short() {
        let shown = [1234.56, 12.345, 1.2345, 0.012_34, 0.0].map(short);
        assert_eq!(shown, ["1235", "12.3", "1.23", "0.012", "0"]);
    }
}
