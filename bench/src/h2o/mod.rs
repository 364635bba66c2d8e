//! `bench h2o`: the ten group-by and five join questions of h2o.ai's database benchmark.

use crate::measure::Plan;
use crate::peers::Peer;
use crate::queries::{self, ByHand, Query, Suite, check};
use crate::report::Report;

mod data;

/// The subcommand's name in the lines.
const BENCH: &str = "h2o";
const ROWS: u64 = 10_000_000;
const ROWS_QUICK: u64 = 1_000_000;
const ROWS_CHECK: u64 = 100_000;

/// The questions of grouping, of the table `x`. None orders its answer.
const GROUP_BY: [(&str, &str); 10] = [
    ("q01", "select id1, sum(v1) as v1 from x group by id1"),
    ("q02", "select id1, id2, sum(v1) as v1 from x group by id1, id2"),
    ("q03", "select id3, sum(v1) as v1, avg(v3) as v3 from x group by id3"),
    ("q04", "select id4, avg(v1) as v1, avg(v2) as v2, avg(v3) as v3 from x group by id4"),
    ("q05", "select id6, sum(v1) as v1, sum(v2) as v2, sum(v3) as v3 from x group by id6"),
    ("q06", "select id4, id5, median(v3) as median_v3, stddev(v3) as sd_v3 from x group by id4, id5"),
    ("q07", "select id3, max(v1) - min(v2) as range_v1_v2 from x group by id3"),
    (
        "q08",
        "select id6, v3 as largest2_v3 from (
            select id6, v3, row_number() over (partition by id6 order by v3 desc) as order_v3 from x where v3 is not null
        ) as ordered where order_v3 <= 2",
    ),
    ("q09", "select id2, id4, power(corr(v1, v2), 2) as r2 from x group by id2, id4"),
    (
        "q10",
        "select id1, id2, id3, id4, id5, id6, sum(v3) as v3, count(*) as cnt
        from x group by id1, id2, id3, id4, id5, id6",
    ),
];

/// The questions of joining, of the table `lhs` with one of three sizes. None orders its answer.
const JOIN: [(&str, &str); 5] = [
    ("join01", "select lhs.*, small.id4 as small_id4, small.v2 from lhs inner join small on lhs.id1 = small.id1"),
    (
        "join02",
        "select lhs.*, medium.id1 as medium_id1, medium.id4 as medium_id4, medium.id5 as medium_id5, medium.v2
        from lhs inner join medium on lhs.id2 = medium.id2",
    ),
    (
        "join03",
        "select lhs.*, medium.id1 as medium_id1, medium.id4 as medium_id4, medium.id5 as medium_id5, medium.v2
        from lhs left join medium on lhs.id2 = medium.id2",
    ),
    (
        "join04",
        "select lhs.*, medium.id1 as medium_id1, medium.id2 as medium_id2, medium.id4 as medium_id4, medium.v2
        from lhs inner join medium on lhs.id5 = medium.id5",
    ),
    (
        "join05",
        "select lhs.*, big.id1 as big_id1, big.id2 as big_id2, big.id4 as big_id4, big.id5 as big_id5,
            big.id6 as big_id6, big.v2
        from lhs inner join big on lhs.id3 = big.id3",
    ),
];

/// The questions that were written for Dask.
const DASK: &[&str] =
    &["q01", "q02", "q03", "q04", "q05", "q06", "q07", "q09", "q10", "join01", "join02", "join03", "join04", "join05"];

/// Measures everything that the plan wants with so many rows, or with `check` only finds out what is right.
pub(crate) fn run(
    plan: &Plan,
    rows: Option<u64>,
    check: Option<&[u32]>,
    peers: &[Peer],
    report: &mut Report,
) -> anyhow::Result<()> {
    let rows = rows.unwrap_or(if check.is_some() {
        ROWS_CHECK
    } else if plan.quick {
        ROWS_QUICK
    } else {
        ROWS
    });
    let folder = data::cached(rows)?;
    let suite = Suite {
        bench: BENCH,
        tables: data::tables(&folder),
        queries: questions(),
        answers: folder.join("answers"),
        agrees: |_, _| Ok(()),
        note: format!("{rows} rows"),
    };
    if let Some(sizes) = check {
        return check::run(&suite, plan, sizes, report);
    }
    let by_hand =
        ByHand { peer: Peer::Dask, cases: DASK, tables: suite.tables.clone(), note: "questions written by hand" };
    queries::run(&suite, &[by_hand], plan, peers, report)
}

fn questions() -> Vec<Query> {
    let questions = GROUP_BY.iter().chain(&JOIN);
    questions.map(|(case, sql)| Query { case: (*case).to_owned(), sql: (*sql).to_owned(), ordered_by: &[] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_question_has_the_answer_that_the_benchmark_says_in_number() {
        let folder = tempfile::tempdir().unwrap();
        data::write(folder.path(), 10_000).unwrap();
        let context = queries::plain_datafusion(2);
        queries::register(&context, &data::tables(folder.path())).await.unwrap();
        let mut rows = Vec::new();
        for question in questions() {
            let answer = queries::collect(context.sql(&question.sql).await.unwrap()).await.unwrap();
            rows.push(answer.rows());
        }
        // All groups of the small keys are there; the left join keeps every row; nine keys of ten find a partner.
        assert_eq!((rows[0], rows[3], rows[12]), (100, 100, 10_000), "{rows:?}");
        assert!(rows[1] > 5_000 && rows[1] <= 10_000, "{rows:?}");
        assert!(rows[9] > 9_900, "{rows:?}");
        for join in [10, 11, 13, 14] {
            assert!(rows[join] > 8_000 && rows[join] < 10_000, "{rows:?}");
        }
    }
}
