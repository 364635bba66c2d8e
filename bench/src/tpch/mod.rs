//! `bench tpch`: the 22 queries of TPC-H, in the standard's text with its validation parameters.

use crate::measure::Plan;
use crate::peers::Peer;
use crate::queries::{self, ByHand, Query, Suite, check};
use crate::report::Report;

mod data;
mod standard;

/// The subcommand's name in the lines.
pub(crate) const BENCH: &str = "tpch";
const SCALE: f64 = 1.0;
const SCALE_QUICK: f64 = 0.1;

/// A query's text, and the columns of its answer that it orders by.
const QUERIES: [(&str, &[usize]); 22] = [
    (include_str!("queries/q01.sql"), &[0, 1]),
    (include_str!("queries/q02.sql"), &[0, 2, 1, 3]),
    (include_str!("queries/q03.sql"), &[1, 2]),
    (include_str!("queries/q04.sql"), &[0]),
    (include_str!("queries/q05.sql"), &[1]),
    (include_str!("queries/q06.sql"), &[]),
    (include_str!("queries/q07.sql"), &[0, 1, 2]),
    (include_str!("queries/q08.sql"), &[0]),
    (include_str!("queries/q09.sql"), &[0, 1]),
    (include_str!("queries/q10.sql"), &[2]),
    (include_str!("queries/q11.sql"), &[1]),
    (include_str!("queries/q12.sql"), &[0]),
    (include_str!("queries/q13.sql"), &[1, 0]),
    (include_str!("queries/q14.sql"), &[]),
    (include_str!("queries/q15.sql"), &[0]),
    (include_str!("queries/q16.sql"), &[3, 0, 1, 2]),
    (include_str!("queries/q17.sql"), &[]),
    (include_str!("queries/q18.sql"), &[4, 3]),
    (include_str!("queries/q19.sql"), &[]),
    (include_str!("queries/q20.sql"), &[0]),
    (include_str!("queries/q21.sql"), &[1, 0]),
    (include_str!("queries/q22.sql"), &[0]),
];

/// The queries that were written for Dask.
const DASK: &[&str] = &[
    "q01", "q02", "q03", "q04", "q05", "q06", "q07", "q08", "q09", "q10", "q11", "q12", "q13", "q14", "q15", "q16",
    "q17", "q18", "q19", "q20", "q21", "q22",
];

/// Measures everything that the plan wants at this scale factor, or with `check` only finds out what is right.
pub(crate) fn run(
    plan: &Plan,
    scale: Option<f64>,
    check: Option<&[u32]>,
    peers: &[Peer],
    report: &mut Report,
) -> anyhow::Result<()> {
    let scale = scale.unwrap_or(if plan.quick || check.is_some() { SCALE_QUICK } else { SCALE });
    let folder = data::cached(scale)?;
    let suite = Suite {
        bench: BENCH,
        tables: data::tables(&folder),
        queries: queries(scale),
        answers: folder.join("answers"),
        agrees: if scale == 1.0 { standard::agrees } else { |_, _| Ok(()) },
        note: format!("scale factor {scale}"),
    };
    if let Some(sizes) = check {
        return check::run(&suite, plan, sizes, report);
    }
    let mut by_hand = Vec::new();
    if peers.contains(&Peer::Dask) {
        by_hand.push(ByHand {
            peer: Peer::Dask,
            cases: DASK,
            tables: data::tables(&data::cached_for_pandas(scale)?),
            note: "queries written by hand; its files have doubles for decimals and times for dates",
        });
    }
    queries::run(&suite, &by_hand, plan, peers, report)
}

fn queries(scale: f64) -> Vec<Query> {
    let queries = QUERIES.iter().zip(1..).map(|((text, ordered_by), number)| Query {
        case: format!("q{number:02}"),
        // Only q11 depends on the scale.
        sql: text.replace("{fraction}", &fraction(scale)),
        ordered_by,
    });
    queries.collect()
}

/// The share of the whole stock's value from which on q11 tells a part.
fn fraction(scale: f64) -> String {
    format!("{:.10}", 0.0001 / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_q11_is_the_standards_and_no_other_query_has_a_hole() {
        assert_eq!(fraction(1.0), "0.0001000000");
        assert_eq!(fraction(0.01), "0.0100000000");
        for query in queries(0.1) {
            assert!(!query.sql.contains(['{', '}']), "{}", query.case);
        }
        assert!(queries(0.1)[10].sql.contains("0.0010000000"));
    }

    #[tokio::test]
    async fn every_query_gives_an_answer_and_orders_by_columns_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        data::write(folder.path(), 0.001, data::Types::Standard).unwrap();
        let context = queries::plain_datafusion(2);
        queries::register(&context, &data::tables(folder.path())).await.unwrap();
        for query in queries(0.001) {
            let frame = context.sql(&query.sql).await.unwrap();
            let columns = frame.schema().fields().len();
            assert!(query.ordered_by.iter().all(|column| *column < columns), "{}", query.case);
            let ordered = query.sql.to_lowercase().lines().filter(|line| line.trim() == "order by").count();
            assert_eq!(ordered, usize::from(!query.ordered_by.is_empty()), "{}", query.case);
            let answer = queries::collect(frame).await.unwrap();
            answer.agrees_with(&answer, query.ordered_by, queries::Origin::DataFusion).unwrap();
        }
    }
}
