//! The dependence patterns of Task Bench, by the definitions of its core library (Slaughter et al., SC'20, table 2;
//! `core/core.cc` of StanfordLegion/task-bench).
//!
//! A graph is a grid: so many steps, each a row of columns. A task takes outputs of the row before. Which ones is said by
//! a dependence set, of which a pattern has one or several that take turns from step to step.

/// Which tasks of the row before a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// None.
    Trivial,
    /// That of its own column.
    NoComm,
    /// Those of its own and the two adjacent columns.
    Stencil,
    /// Those of its own column and of the two at a distance that is another power of two in each step.
    Fft,
    /// That of half its column's number; the rows double in width until they are full.
    Tree,
    /// Those of the [`RADIX`] nearest columns.
    Nearest,
    /// Those of [`RADIX`] columns spread over the row, others in each of [`PERIOD`] steps.
    Spread,
    /// That of its own column, and of the [`RADIX`] nearest ones each with the probability [`CONNECTED`].
    Random,
}

/// How many columns `nearest`, `spread` and `random` look at: as in the experiments of the paper.
const RADIX: u32 = 5;
/// After how many steps `spread` and `random` repeat: the core library's default, as is the next.
const PERIOD: u32 = 3;
const CONNECTED: f64 = 0.25;

impl Pattern {
    pub(super) const ALL: [Pattern; 8] = [
        Pattern::Trivial,
        Pattern::NoComm,
        Pattern::Stencil,
        Pattern::Fft,
        Pattern::Tree,
        Pattern::Nearest,
        Pattern::Spread,
        Pattern::Random,
    ];

    /// Its name in the lines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Pattern::Trivial => "trivial",
            Pattern::NoComm => "no-comm",
            Pattern::Stencil => "stencil",
            Pattern::Fft => "fft",
            Pattern::Tree => "tree",
            Pattern::Nearest => "nearest",
            Pattern::Spread => "spread",
            Pattern::Random => "random",
        }
    }
}

/// The tasks of a graph and what each takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) pattern: Pattern,
    /// Columns of a full row, at least one.
    pub(super) width: u32,
    /// Rows.
    pub(super) steps: u32,
}

impl Grid {
    /// How many tasks the row has. They are in the columns from 0.
    pub(super) fn width_at(&self, step: u32) -> u32 {
        match self.pattern {
            Pattern::Tree => self.width.min(1_u32.checked_shl(step).unwrap_or(u32::MAX)),
            _ => self.width,
        }
    }

    /// The columns of the row before whose outputs the task takes, each once, in rising order but for `spread`.
    pub(super) fn inputs(&self, step: u32, column: u32) -> Vec<u32> {
        let Some(before) = step.checked_sub(1) else { return Vec::new() };
        let width = self.width_at(before);
        let all = self.dependencies(self.set_at(step), column);
        all.into_iter().filter(|column| *column < width).collect()
    }

    /// Whether a task of the next row takes this one's output.
    pub(super) fn is_used(&self, step: u32, column: u32) -> bool {
        let next = step + 1;
        next < self.steps
            && self.dependents(self.set_at(next), column).iter().any(|column| *column < self.width_at(next))
    }

    /// How many dependence sets take turns.
    fn sets(&self) -> u32 {
        match self.pattern {
            // As many as there are powers of two below the width.
            Pattern::Fft => self.width.next_power_of_two().ilog2().max(1),
            // More would wrap around, and name a column twice.
            Pattern::Spread => PERIOD.min(self.width.div_ceil(self.spread())),
            Pattern::Random => PERIOD,
            _ => 1,
        }
    }

    /// The set by which the row takes from the one before.
    fn set_at(&self, step: u32) -> u32 {
        let sets = self.sets();
        match self.pattern {
            Pattern::Fft => (step + sets - 1) % sets,
            _ => step % sets,
        }
    }

    /// How many columns `spread` takes: a narrow row has no more.
    fn spread(&self) -> u32 {
        RADIX.min(self.width)
    }

    /// The columns that `column` takes by this set, in a row before it that is full.
    fn dependencies(&self, set: u32, column: u32) -> Vec<u32> {
        match self.pattern {
            Pattern::Trivial => Vec::new(),
            Pattern::NoComm => vec![column],
            Pattern::Stencil => self.between(column, 1, 1),
            Pattern::Fft => self.butterfly(set, column),
            Pattern::Tree => vec![column / 2],
            Pattern::Nearest => self.between(column, RADIX / 2, (RADIX - 1) / 2),
            Pattern::Spread => (0..self.spread()).map(|turn| (column + self.offset(set, turn)) % self.width).collect(),
            Pattern::Random => {
                let near = self.between(column, RADIX / 2, (RADIX - 1) / 2);
                near.into_iter().filter(|from| is_connected(set, *from, column)).collect()
            }
        }
    }

    /// The columns that take `column` by this set, in a row after it that is full: the mirror of [`Grid::dependencies`].
    fn dependents(&self, set: u32, column: u32) -> Vec<u32> {
        match self.pattern {
            Pattern::Trivial => Vec::new(),
            Pattern::NoComm => vec![column],
            Pattern::Stencil => self.between(column, 1, 1),
            Pattern::Fft => self.butterfly(set, column),
            Pattern::Tree => [column * 2, column * 2 + 1].into_iter().filter(|child| *child < self.width).collect(),
            Pattern::Nearest => self.between(column, (RADIX - 1) / 2, RADIX / 2),
            Pattern::Spread => (0..self.spread())
                .map(|turn| (column + self.width - self.offset(set, turn) % self.width) % self.width)
                .collect(),
            Pattern::Random => {
                let near = self.between(column, (RADIX - 1) / 2, RADIX / 2);
                near.into_iter().filter(|to| is_connected(set, column, *to)).collect()
            }
        }
    }

    /// The columns from so many below to so many above, as far as there are.
    fn between(&self, column: u32, below: u32, above: u32) -> Vec<u32> {
        (column.saturating_sub(below)..=(column + above).min(self.width - 1)).collect()
    }

    fn butterfly(&self, set: u32, column: u32) -> Vec<u32> {
        let distance = 1 << set;
        let below = column.checked_sub(distance);
        let above = Some(column + distance).filter(|column| *column < self.width);
        [below, Some(column), above].into_iter().flatten().collect()
    }

    /// How far the column of this turn of `spread` is away.
    fn offset(&self, set: u32, turn: u32) -> u32 {
        turn * self.width / self.spread() + if turn > 0 { set } else { 0 }
    }
}

/// Whether `random` connects the two columns: a coin that falls the same way every time.
fn is_connected(set: u32, from: u32, to: u32) -> bool {
    let place = u64::from(set) << 48 | u64::from(from) << 24 | u64::from(to);
    from == to || (mixed(place) as f64) < CONNECTED * u64::MAX as f64
}

/// A number from another, all of whose bits depend on all of the other's (the finalizer of SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn grid(pattern: Pattern, width: u32) -> Grid {
        Grid { pattern, width, steps: 9 }
    }

    #[test]
    fn a_few_cells_by_hand() {
        assert!(grid(Pattern::Trivial, 8).inputs(3, 4).is_empty());
        assert_eq!(grid(Pattern::NoComm, 8).inputs(3, 4), [4]);

        let stencil = grid(Pattern::Stencil, 8);
        assert_eq!(stencil.inputs(1, 0), [0, 1]);
        assert_eq!(stencil.inputs(1, 4), [3, 4, 5]);
        assert_eq!(stencil.inputs(8, 7), [6, 7]);

        // Distances 1, 2, 4, and again.
        let fft = grid(Pattern::Fft, 8);
        assert_eq!(fft.inputs(1, 3), [2, 3, 4]);
        assert_eq!(fft.inputs(2, 3), [1, 3, 5]);
        assert_eq!(fft.inputs(3, 3), [3, 7]);
        assert_eq!(fft.inputs(4, 3), [2, 3, 4]);

        let tree = grid(Pattern::Tree, 8);
        assert_eq!((0..6).map(|step| tree.width_at(step)).collect::<Vec<_>>(), [1, 2, 4, 8, 8, 8]);
        assert_eq!(tree.inputs(1, 1), [0]);
        assert_eq!(tree.inputs(3, 7), [3]);
        assert!(tree.is_used(2, 3));
        assert!(!tree.is_used(3, 4), "in a full row, the children of the upper half would be outside");

        let nearest = grid(Pattern::Nearest, 8);
        assert_eq!(nearest.inputs(1, 0), [0, 1, 2]);
        assert_eq!(nearest.inputs(1, 4), [2, 3, 4, 5, 6]);
        assert_eq!(nearest.inputs(1, 7), [5, 6, 7]);

        // Of 10 columns every second one, and all but its own one further in every later set.
        let spread = grid(Pattern::Spread, 10);
        assert_eq!(spread.inputs(1, 4), [4, 7, 9, 1, 3]);
        assert_eq!(spread.inputs(2, 4), [4, 6, 8, 0, 2]);
        assert_eq!(spread.inputs(3, 4), [4, 7, 9, 1, 3], "a width of 10 has room for two sets of five");
    }

    #[test]
    fn spread_has_as_many_sets_as_its_period_where_there_is_room() {
        let spread = grid(Pattern::Spread, 32);
        assert_eq!(spread.sets(), PERIOD);
        assert_eq!(spread.inputs(3, 0), [0, 6, 12, 19, 25]);
        assert_eq!(spread.inputs(4, 0), [0, 7, 13, 20, 26]);
        assert_eq!(spread.inputs(5, 0), [0, 8, 14, 21, 27]);
    }

    #[test]
    fn random_takes_its_own_column_and_about_a_quarter_of_the_four_beside() {
        let random = Grid { pattern: Pattern::Random, width: 1_000, steps: 4 };
        let mut beside = 0;
        for step in 1..4 {
            for column in 0..1_000 {
                let inputs = random.inputs(step, column);
                assert!(inputs.contains(&column));
                assert!(inputs.iter().all(|from| from.abs_diff(column) <= 2));
                beside += inputs.len() - 1;
            }
        }
        assert!((2_700..3_300).contains(&beside), "{beside} of 12,000");
        let first: Vec<_> = (0..100).map(|column| random.inputs(1, column)).collect();
        let second: Vec<_> = (0..100).map(|column| random.inputs(2, column)).collect();
        assert_ne!(first, second);
    }

    #[test]
    fn dependents_mirror_dependencies_at_every_width() {
        for pattern in Pattern::ALL {
            for width in [1, 2, 3, 5, 6, 7, 8, 16, 31, 32, 33] {
                let grid = grid(pattern, width);
                for set in 0..grid.sets() {
                    let all = |edges: fn(&Grid, u32, u32) -> Vec<u32>| {
                        (0..width)
                            .flat_map(move |column| edges(&grid, set, column).into_iter().map(move |o| (column, o)))
                    };
                    let taken: BTreeSet<_> = all(Grid::dependencies).map(|(to, from)| (from, to)).collect();
                    let given: BTreeSet<_> = all(Grid::dependents).collect();
                    assert_eq!(taken, given, "{pattern:?}, width {width}, set {set}");
                }
            }
        }
    }

    #[test]
    fn every_input_is_a_task_of_the_row_before_and_is_taken_once() {
        for pattern in Pattern::ALL {
            for width in [1, 2, 3, 5, 8, 10, 33] {
                let grid = grid(pattern, width);
                for step in 0..grid.steps {
                    for column in 0..grid.width_at(step) {
                        let inputs = grid.inputs(step, column);
                        let distinct: BTreeSet<_> = inputs.iter().copied().collect();
                        assert_eq!(distinct.len(), inputs.len(), "{pattern:?}, width {width}: {inputs:?}");
                        if step == 0 {
                            assert!(inputs.is_empty());
                        } else {
                            assert!(
                                inputs.iter().all(|from| *from < grid.width_at(step - 1)),
                                "{pattern:?}: {inputs:?}"
                            );
                        }
                        // An unused output is one that no task names.
                        let named = step + 1 < grid.steps
                            && (0..grid.width_at(step + 1)).any(|to| grid.inputs(step + 1, to).contains(&column));
                        assert_eq!(grid.is_used(step, column), named, "{pattern:?}, width {width}, ({step}, {column})");
                    }
                }
            }
        }
    }
}
