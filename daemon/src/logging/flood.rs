//! How often a line may be said: whatever causes it, a stranger's input included.
//!
//! Each place in the code that logs has a number of lines for every ten seconds; further ones are
//! left out, counted, and told as one line ("…; 1,234 more like it in the last 10 s"). A place that
//! goes on like that has few lines until it is quiet again. Invariants: this holds for every line
//! of the process, so that no new one can be forgotten; memory is one entry per place that logs,
//! and places are in the code, not in the input; `now` is passed in.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use net::metrics::LogMetrics;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// What is counted together, ms.
const WINDOW_MS: u64 = 10_000;
/// Lines of one place in that time, of a place that was quiet: what a bad start has to tell.
const LINES_MAX: u32 = 40;
/// The same of a place that had more of them in the window before.
const LINES_MAX_IN_A_FLOOD: u32 = 2;
/// How many times as many an operator may see who asked for more than is usual.
const FINE_FACTOR: u32 = 10;
/// What is kept of a line that stands for those like it.
const EXAMPLE_CHARS_MAX: usize = 500;

/// Where lines about lines come from; they are not counted themselves.
const TARGET: &str = "oklogd::flood";

/// Lines of one place that were left out.
#[derive(Debug, PartialEq, Eq)]
struct Flood<K> {
    place: K,
    count: u64,
    /// What the first of them said.
    example: String,
}

#[derive(Debug)]
struct Window {
    began_ms: u64,
    lines_max: u32,
    said: u32,
    left_out: u64,
    /// Of earlier windows, too.
    untold: u64,
    example: String,
}

/// See the module page.
#[derive(Debug)]
struct Floods<K> {
    windows: HashMap<K, Window>,
}

impl<K: Clone + Eq + Hash> Floods<K> {
    fn new() -> Self {
        Self { windows: HashMap::new() }
    }

    /// Whether a line of this place is said; `lines_max` is what it has while it is quiet.
    /// `example` is asked for where the line is to stand for those that are left out.
    fn may_say(
        &mut self,
        place: K,
        lines_max: u32,
        now_ms: u64,
        example: impl FnOnce() -> String,
    ) -> bool {
        let window = self.windows.entry(place).or_insert_with(|| Window::new(lines_max, now_ms));
        window.turn(lines_max, now_ms);
        if window.said < window.lines_max {
            window.said += 1;
            return true;
        }
        if window.left_out == 0 {
            window.example = example();
        }
        window.left_out += 1;
        false
    }

    /// What was left out in windows that are over, each time once.
    fn over(&mut self, lines_max: impl Fn(&K) -> u32, now_ms: u64) -> Vec<Flood<K>> {
        let mut floods = Vec::new();
        self.windows.retain(|place, window| {
            window.turn(lines_max(place), now_ms);
            if window.untold > 0 {
                let (count, example) = (window.untold, window.example.clone());
                floods.push(Flood { place: place.clone(), count, example });
                window.untold = 0;
            }
            !window.is_quiet()
        });
        floods
    }
}

impl Window {
    fn new(lines_max: u32, now_ms: u64) -> Self {
        let example = String::new();
        Self { began_ms: now_ms, lines_max, said: 0, left_out: 0, untold: 0, example }
    }

    /// Begins the next one if this one is over.
    fn turn(&mut self, lines_max: u32, now_ms: u64) {
        let age_ms = now_ms.saturating_sub(self.began_ms);
        if age_ms < WINDOW_MS {
            return;
        }
        let goes_on = self.left_out > 0 && age_ms < 2 * WINDOW_MS;
        self.untold += std::mem::take(&mut self.left_out);
        self.lines_max = if goes_on { lines_max.min(LINES_MAX_IN_A_FLOOD) } else { lines_max };
        (self.began_ms, self.said) = (now_ms, 0);
    }

    /// Nothing of it needs to be remembered.
    fn is_quiet(&self) -> bool {
        self.said == 0 && self.left_out == 0 && self.lines_max > LINES_MAX_IN_A_FLOOD
    }
}

/// Leaves lines out before they are formatted.
pub(super) struct FloodGate {
    floods: Mutex<Floods<Place>>,
    start: Instant,
    metrics: LogMetrics,
}

type Place = (Identifier, Level);

impl FloodGate {
    /// Lets everything pass that comes now and then.
    pub(super) fn new(metrics: LogMetrics) -> Self {
        Self { floods: Mutex::new(Floods::new()), start: Instant::now(), metrics }
    }

    /// Tells what was left out, where the time that it is counted in is over; at the end of the
    /// process all of it.
    pub(super) fn tell(&self, is_end: bool) {
        let now_ms = if is_end { u64::MAX } else { self.now_ms() };
        let over = {
            let mut floods = self.floods.lock().unwrap_or_else(PoisonError::into_inner);
            floods.over(|(_, level)| lines_max(*level), now_ms)
        };
        for flood in over {
            let words = flood.to_string();
            let (_, level) = flood.place;
            match level {
                Level::ERROR => tracing::error!(target: TARGET, "{words}"),
                Level::WARN => tracing::warn!(target: TARGET, "{words}"),
                Level::INFO => tracing::info!(target: TARGET, "{words}"),
                _ => tracing::debug!(target: TARGET, "{words}"),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

fn lines_max(level: Level) -> u32 {
    if level > Level::INFO { LINES_MAX * FINE_FACTOR } else { LINES_MAX }
}

impl<K> fmt::Display for Flood<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, example, .. } = self;
        write!(f, "{example}; {count} more like it in the last {} s", WINDOW_MS / 1000)
    }
}

impl<S: Subscriber> Layer<S> for &'static FloodGate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == TARGET {
            return true;
        }
        let (place, now_ms) = ((metadata.callsite(), *metadata.level()), self.now_ms());
        let mut floods = self.floods.lock().unwrap_or_else(PoisonError::into_inner);
        let example = || {
            let mut message = Message(String::new());
            event.record(&mut message);
            message.0
        };
        let level = place.1;
        let may = floods.may_say(place, lines_max(level), now_ms, example);
        if !may {
            self.metrics.more_like_it.inc();
        }
        may
    }
}

/// The words of an event without its fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").chars().take(EXAMPLE_CHARS_MAX).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(floods: &mut Floods<u8>, place: u8, times: u64, now_ms: u64) -> u64 {
        (0..times).filter(|n| floods.may_say(place, 40, now_ms, || format!("line {n}"))).count()
            as u64
    }

    fn over(floods: &mut Floods<u8>, now_ms: u64) -> Vec<String> {
        floods.over(|_| 40, now_ms).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_comes_now_and_then_is_said_and_a_flood_is_counted() {
        let mut floods = Floods::new();
        assert_eq!(say(&mut floods, 1, 40, 0), 40);
        assert_eq!(say(&mut floods, 1, 1_234, 5_000), 0);
        assert_eq!(say(&mut floods, 2, 3, 5_000), 3, "others are not touched");
        assert!(over(&mut floods, 9_999).is_empty());
        assert_eq!(over(&mut floods, 10_000), ["line 0; 1234 more like it in the last 10 s"]);
        assert!(over(&mut floods, 10_001).is_empty(), "told once");
    }

    #[test]
    fn a_flood_that_goes_on_has_few_lines_until_it_is_over() {
        let mut floods = Floods::new();
        assert_eq!(say(&mut floods, 1, 100, 0), 40);
        assert_eq!(say(&mut floods, 1, 100, 10_000), 2);
        assert_eq!(over(&mut floods, 10_000).len(), 1);
        assert_eq!(over(&mut floods, 20_000), ["line 2; 98 more like it in the last 10 s"]);
        // Few, but without anything left out: it is over.
        assert_eq!(say(&mut floods, 1, 2, 21_000), 2);
        assert_eq!(say(&mut floods, 1, 100, 30_000), 40);
        // As after silence.
        assert_eq!(say(&mut floods, 1, 100, 60_000), 40);
    }

    #[test]
    fn nobody_has_to_ask_in_time_and_nothing_is_kept_of_who_is_quiet() {
        let mut floods = Floods::new();
        say(&mut floods, 1, 50, 0);
        say(&mut floods, 1, 50, 10_000);
        assert_eq!(over(&mut floods, 90_000), ["line 2; 58 more like it in the last 10 s"]);
        assert!(over(&mut floods, 180_000).is_empty() && floods.windows.is_empty());
    }
}
