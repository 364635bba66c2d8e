//! How far a query is, for those who watch it.

/// How far the stages of the query that runs are. Empty before the first, and for a session that has run none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryProgress {
    /// All stages of the query, whether begun or not.
    pub stages: Vec<StageProgress>,
}

/// How far one stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageProgress {
    /// Its number in the query's plan, as `EXPLAIN` shows it.
    pub stage: usize,
    /// How many tasks it is.
    pub tasks: usize,
    /// How many of them have given their output.
    pub done: usize,
}

impl StageProgress {
    /// Whether every task has given its output.
    pub fn is_done(&self) -> bool {
        self.done >= self.tasks
    }
}

impl QueryProgress {
    /// How many stages are done.
    pub fn stages_done(&self) -> usize {
        self.stages.iter().filter(|stage| stage.is_done()).count()
    }

    /// How many tasks are done, and how many there are.
    pub fn tasks(&self) -> (usize, usize) {
        self.stages.iter().fold((0, 0), |(done, all), stage| (done + stage.done, all + stage.tasks))
    }
}
