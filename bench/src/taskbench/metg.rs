//! The minimum effective task granularity: how small tasks may be before a system spends as much time on them as in them.
//!
//! As the paper has it: a graph is run with smaller and smaller kernels. The granularity of a run is its wall time times
//! the threads, over the tasks; its efficiency is the work it did over the work that its threads can do in that time.
//! METG(50%) is the smallest granularity whose efficiency is at least one half, read off the curve through the runs.

/// The efficiency that a task must have.
pub(super) const GOAL: f64 = 0.5;
/// A sweep ends below this, so that one disturbed run above the crossing does not end it.
const ENOUGH: f64 = 0.4;
/// The first kernel of a sweep, in microseconds.
const FIRST_US: f64 = 256.0;
/// The largest kernel that is tried where the first is too small.
const LARGEST_US: f64 = 65_536.0;

/// A run of the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) granularity_us: f64,
    pub(super) efficiency: f64,
}

impl Point {
    /// A run of tasks whose kernels take `kernel_us` microseconds each, on so many threads.
    pub(super) fn new(kernel_us: f64, tasks: u64, threads: u32, wall_s: f64) -> Point {
        let granularity_us = wall_s * 1e6 * f64::from(threads) / tasks as f64;
        Point { granularity_us, efficiency: kernel_us / granularity_us }
    }
}

/// What a sweep of kernels tries next.
#[derive(Debug)]
pub(super) struct Sweep {
    /// From the largest kernel to the smallest.
    points: Vec<Point>,
    largest_us: f64,
    smallest_us: f64,
    /// The least that can be asked of a kernel.
    unit_us: f64,
}

impl Sweep {
    /// Begins one, of kernels that are made of units of so many microseconds.
    pub(super) fn new(unit_us: f64) -> Sweep {
        Sweep { points: Vec::new(), largest_us: FIRST_US, smallest_us: FIRST_US, unit_us }
    }

    /// The microseconds of the next kernel; `None` when enough is known.
    pub(super) fn next(&self) -> Option<f64> {
        let points = self.points();
        let (Some(largest), Some(smallest)) = (points.first(), points.last()) else {
            return Some(FIRST_US);
        };
        if largest.efficiency < GOAL {
            return (self.largest_us < LARGEST_US).then_some(self.largest_us * 2.0);
        }
        // Where the sweep went up, the crossing lies between two points already.
        (smallest.efficiency >= ENOUGH && self.smallest_us > self.unit_us).then_some(self.smallest_us / 2.0)
    }

    /// The run of the kernel that [`Sweep::next`] has named.
    pub(super) fn add(&mut self, kernel_us: f64, point: Point) {
        if kernel_us > self.largest_us {
            self.largest_us = kernel_us;
            self.points.insert(0, point);
        } else {
            self.smallest_us = kernel_us;
            self.points.push(point);
        }
    }

    /// METG in microseconds; `None` if no run was efficient enough.
    pub(super) fn metg(&self) -> Option<f64> {
        metg(&self.points())
    }

    /// The efficiency of the largest kernel.
    pub(super) fn largest_efficiency(&self) -> Option<f64> {
        self.points().first().map(|point| point.efficiency)
    }

    /// The points, against the most that was reached, where that is more than what the threads had measured: they may have
    /// been disturbed then, and the paper's peak is what was reached.
    fn points(&self) -> Vec<Point> {
        let peak = self.points.iter().map(|point| point.efficiency).fold(1.0, f64::max);
        self.points.iter().map(|point| Point { efficiency: point.efficiency / peak, ..*point }).collect()
    }
}

/// Where the curve through the points, from the largest kernel to the smallest, last falls below the goal. Between two
/// points it is straight over the logarithm of the granularity. A curve that never falls below gives its last point.
fn metg(points: &[Point]) -> Option<f64> {
    let above = points.iter().rposition(|point| point.efficiency >= GOAL)?;
    let Point { granularity_us, efficiency } = points[above];
    let Some(below) = points.get(above + 1) else { return Some(granularity_us) };
    let share = (efficiency - GOAL) / (efficiency - below.efficiency);
    let log = granularity_us.ln() + share * (below.granularity_us.ln() - granularity_us.ln());
    // A disturbed run may lie to the right of the one before it; the granularity that reached the goal is then the answer.
    Some(log.exp().min(granularity_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(granularity_us: f64, efficiency: f64) -> Point {
        Point { granularity_us, efficiency }
    }

    /// The sweep of a system that needs so many microseconds a task beside the kernel.
    fn swept(overhead_us: f64, unit_us: f64) -> (Vec<f64>, Sweep) {
        let mut sweep = Sweep::new(unit_us);
        let mut kernels = Vec::new();
        while let Some(kernel_us) = sweep.next() {
            kernels.push(kernel_us);
            sweep.add(kernel_us, Point::new(kernel_us, 1_000, 2, (kernel_us + overhead_us) * 1e-6 * 500.0));
        }
        (kernels, sweep)
    }

    #[test]
    fn a_run_of_tasks_half_of_whose_time_is_kernel_is_half_efficient() {
        // 1,000 tasks on 2 threads in 10 ms are 20 us a task.
        assert_eq!(Point::new(10.0, 1_000, 2, 0.01), point(20.0, 0.5));
    }

    #[test]
    fn the_crossing_lies_between_the_two_points_around_it() {
        let points = [point(100.0, 0.9), point(40.0, 0.7), point(10.0, 0.3)];
        assert!((metg(&points).unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(metg(&[point(40.0, 0.5), point(10.0, 0.3)]), Some(40.0));
    }

    #[test]
    fn the_last_crossing_counts_not_a_disturbed_run_above_it() {
        let points = [point(100.0, 0.9), point(90.0, 0.45), point(40.0, 0.6), point(20.0, 0.4)];
        let found = metg(&points).unwrap();
        assert!((20.0..40.0).contains(&found), "{found}");
    }

    #[test]
    fn a_slower_run_below_the_crossing_does_not_push_it_up() {
        assert_eq!(metg(&[point(40.0, 0.6), point(60.0, 0.2)]), Some(40.0));
    }

    #[test]
    fn a_curve_that_never_crosses_gives_its_end_or_nothing() {
        assert_eq!(metg(&[point(100.0, 0.9), point(10.0, 0.8)]), Some(10.0));
        assert_eq!(metg(&[point(100.0, 0.4)]), None);
        assert_eq!(metg(&[]), None);
    }

    #[test]
    fn a_sweep_goes_down_until_the_goal_is_well_behind() {
        let (kernels, sweep) = swept(10.0, 0.01);
        assert_eq!(kernels, [256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0]);
        // Half efficient at 10 us of kernel and 10 us beside.
        let found = sweep.metg().unwrap();
        assert!((19.0..21.0).contains(&found), "{found}");
        assert!((sweep.largest_efficiency().unwrap() - 256.0 / 266.0).abs() < 1e-9);
    }

    #[test]
    fn a_sweep_goes_up_where_the_first_kernel_is_too_small() {
        let (kernels, sweep) = swept(1_000.0, 0.01);
        assert_eq!(kernels, [256.0, 512.0, 1024.0]);
        let found = sweep.metg().unwrap();
        assert!((1_900.0..2_100.0).contains(&found), "{found}");
    }

    #[test]
    fn threads_that_do_more_than_they_had_measured_are_measured_by_what_they_did() {
        let mut sweep = Sweep::new(0.01);
        for (kernel_us, efficiency) in [(256.0, 1.5), (128.0, 1.2), (64.0, 0.75), (32.0, 0.63)] {
            assert_eq!(sweep.next(), Some(kernel_us));
            sweep.add(kernel_us, point(kernel_us, efficiency));
        }
        // 0.75 is half of 1.5, and 0.63 enough of it for the sweep to go on.
        assert!((sweep.metg().unwrap() - 64.0).abs() < 1e-9);
        assert_eq!(sweep.next(), Some(16.0));
        sweep.add(16.0, point(16.0, 0.3));
        assert_eq!(sweep.next(), None);
        assert_eq!(sweep.largest_efficiency(), Some(1.0));
    }

    #[test]
    fn a_sweep_ends_at_the_smallest_and_at_the_largest_kernel() {
        let (kernels, sweep) = swept(0.0, 100.0);
        assert_eq!(kernels, [256.0, 128.0, 64.0]);
        assert_eq!(sweep.metg(), Some(64.0));
        let (kernels, sweep) = swept(1e6, 1.0);
        assert_eq!(kernels.last(), Some(&LARGEST_US));
        assert_eq!(sweep.metg(), None);
    }
}
