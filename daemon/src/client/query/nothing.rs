//! What a person is told who sees no record.
//!
//! Pure. Told on a terminal only: elsewhere no output and the exit code say it, as with grep.

use engine::ulid::Ulid;

use super::QueryConfig;
use super::course::Range;

/// What stands in regular expressions and hardly in what people look for.
const SIGNS: [&str; 12] =
    [".*", ".+", "\\d", "\\w", "\\s", "\\b", "\\.", "[0-9", "[a-z", "[A-Z", "[^", ")|("];

/// A sentence for who finds nothing.
pub(super) fn words(config: &QueryConfig, range: &Range) -> String {
    let newest = Ulid::MAX.to_string();
    let to = range.to.as_deref().filter(|to| *to != newest).unwrap_or("now");
    let from = range.from.as_deref().unwrap_or("the beginning");
    let (expressions, topics) = (&config.expressions, config.topics.join(", "));
    let is_anything = expressions.q.iter().all(String::is_empty) && expressions.x.is_empty();
    let what = if is_anything { "is there" } else { "matches" };
    let of = if topics.is_empty() { String::new() } else { format!(" of topic {topics}") };
    let behind = config.after.as_ref().map(|after| format!(" behind {after}")).unwrap_or_default();
    let place = format!("no record{of} {what} from {from} to {to}{behind} (--since, --until)");
    let is_text = |q: &&String| !config.expressions.regex && is_like_a_regex(q);
    let Some(expression) = config.expressions.q.iter().find(is_text) else { return place };
    let shown: String = expression.chars().take(60).flat_map(visible).collect();
    format!(
        "{place}; \"{shown}\" is searched as plain text: --regex takes it as a regular expression"
    )
}

/// Control characters alone are escaped: what is shown is to be copied.
fn visible(character: char) -> Vec<char> {
    if character.is_control() { character.escape_debug().collect() } else { vec![character] }
}

fn is_like_a_regex(text: &str) -> bool {
    let is_anchored = text.len() > 1 && (text.starts_with('^') || text.ends_with('$'));
    let alternatives = text.split_once('|').is_some_and(|(a, b)| is_word(a) && is_word(b));
    is_anchored || alternatives || SIGNS.iter().any(|sign| text.contains(sign))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_as_a_regex_is_seen_and_what_is_not_is_left_alone() {
        for text in ["a.*b", "error|warn", "^ERROR", "done$", "id=\\d+", "[0-9]{3}", "(a)|(b)"] {
            assert!(is_like_a_regex(text), "{text}");
        }
        for text in
            ["", "$", "^", "a | b", "||", "10.0.0.1", "[ERROR]", "f(x)", "a+b", "$HOME", "what?"]
        {
            assert!(!is_like_a_regex(text), "{text}");
        }
    }
}
