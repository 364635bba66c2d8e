//! Posts of a Stack Exchange site as CSV: their records, a report over them, and a maker of files like them.
//!
//! The report is the project's main job. It stands in the library, so that every plain `node` has its tasks.

mod generate;
mod post;
mod report;
#[cfg(test)]
mod tests;
mod time;

pub use generate::{GenerateOptions, cached_posts, generate};
pub use post::{ANSWER, Post, QUESTION, tags};
pub use report::{Facts, Progress, Report, ReportOptions, Timing, report};
pub use time::{Moment, Month};
