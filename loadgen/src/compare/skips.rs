//! How many blocks a node passes over for text that is nowhere: what its signatures are worth.

use serde_json::Value;

use super::Contest;
use super::absent::{CLASSES, Class};
use super::node::Node;
use super::series::Series;
use super::table::Row;
use super::words::Words;
use crate::failure::{Context, Failure, Result};
use crate::query::Query;

/// Needles of each class.
const NEEDLES: usize = 100;
/// Needles that may be drawn for them: some occur, and are drawn again.
const DRAWS_MAX: usize = 20 * NEEDLES;

/// Asks the node that holds the corpus.
pub(super) fn run(contest: &Contest<'_>, node: &Node, rows: &mut Vec<Row>) -> Result<()> {
    contest.tell("blocks skipped for absent needles");
    let words = Words::read(contest.raw)?;
    for class in CLASSES {
        rows.push(measure(class, contest.args.source.seed, &words, &mut |needle| {
            let query = Query {
                api: node.api.clone(),
                expression: Some(needle.into()),
                ..Query::default()
            };
            node.text(&(query.path() + "&stats"))
        })?);
    }
    Ok(())
}

/// `ask` returns the node's answer to `?stats` for a needle.
fn measure(
    class: Class,
    seed: u64,
    words: &Words,
    ask: &mut dyn FnMut(&str) -> Result<String>,
) -> Result<Row> {
    let mut shares = Series::default();
    let mut found = 0;
    for needle in class.needles(seed, words).take(DRAWS_MAX) {
        if shares.runs().len() == NEEDLES {
            break;
        }
        match skipped_percent(&ask(&needle)?)? {
            Some(share) => shares.push(share),
            None => found += 1,
        }
    }
    let count = shares.runs().len();
    let mut row = Row::new(format!("blocks skipped, absent {}", class.name()), "%", shares)
        .remark(format!("wanted ≥ {} %", class.bar_percent()));
    if count < NEEDLES {
        row = row.remark(format!("only {count} needles could be drawn"));
    }
    if found > 0 {
        row = row.remark(format!("{found} others occur"));
    }
    Ok(row)
}

/// `None` if the needle occurs.
fn skipped_percent(answer: &str) -> Result<Option<f64>> {
    let stats: Value =
        serde_json::from_str(answer).context(|| "reading the answer to ?stats".into())?;
    let field = |name: &str| stats[name].as_f64();
    let (Some(records), Some(read), Some(skipped)) =
        (field("records"), field("blocks_read"), field("blocks_skipped"))
    else {
        return Err(Failure::run(format!("the answer to ?stats lacks counts: {answer}")));
    };
    if stats["complete"] == false {
        return Err(Failure::run(format!("the answer to ?stats is incomplete: {answer}")));
    }
    Ok((records == 0.0).then(|| 100.0 * skipped / (read + skipped).max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(records: u64, read: u64, skipped: u64) -> String {
        format!(
            "{{\"records\":{records},\"blocks_read\":{read},\"blocks_skipped\":{skipped},\
             \"complete\":true}}"
        )
    }

    #[test]
    fn the_share_is_of_all_blocks_and_needles_that_occur_are_drawn_again() {
        let mut asked = Vec::new();
        let row = measure(Class::Hex(12), 1, &Words::default(), &mut |needle| {
            asked.push(needle.to_string());
            // One in ten occurs; of the others, half have a quarter of the blocks read.
            let index = asked.len() as u64;
            Ok(answer(
                u64::from(index.is_multiple_of(10)),
                25 * (index % 2),
                100 - 25 * (index % 2),
            ))
        })
        .unwrap();
        assert_eq!(row.what, "blocks skipped, absent 12 hex digits");
        assert_eq!(row.ours.runs().len(), NEEDLES);
        assert_eq!((row.ours.min(), row.ours.max()), (75.0, 100.0));
        assert_eq!(row.remarks, ["wanted ≥ 99 %", "11 others occur"]);
        asked.sort();
        asked.dedup();
        assert_eq!(asked.len(), NEEDLES + 11, "every needle is another one");
    }

    #[test]
    fn a_class_that_always_occurs_or_cannot_be_drawn_ends() {
        let words = Words::default();
        let row = measure(Class::Uuid, 1, &words, &mut |_| Ok(answer(1, 1, 0))).unwrap();
        assert!(row.ours.is_empty());
        assert_eq!(row.remarks[1..], ["only 0 needles could be drawn", "2000 others occur"]);
        let row = measure(Class::Alike(7), 1, &words, &mut |_| Ok(answer(0, 0, 1))).unwrap();
        assert_eq!(row.remarks[1..], ["only 0 needles could be drawn"]);
    }

    #[test]
    fn an_answer_that_does_not_count_or_is_incomplete_is_an_error() {
        assert!(skipped_percent("{}").is_err());
        let cut = answer(0, 1, 1).replace("true", "false");
        assert!(skipped_percent(&cut).unwrap_err().to_string().contains("incomplete"));
    }
}
