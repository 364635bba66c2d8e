//! A post, and its tags.

use serde::{Deserialize, Serialize};

/// The type of a question.
pub const QUESTION: u32 = 1;
/// The type of an answer.
pub const ANSWER: u32 = 2;

/// A row of a posts file, with all its columns. A query does better with a struct of the columns that it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Post {
    pub id: i64,
    pub post_type_id: u32,
    pub accepted_answer_id: Option<i64>,
    pub parent_id: Option<i64>,
    pub creation_date: String,
    pub score: Option<i64>,
    pub view_count: Option<i64>,
    /// HTML.
    pub body: String,
    pub owner_user_id: Option<i64>,
    pub title: Option<String>,
    /// As `<a><b>`; see [`tags`].
    pub tags: Option<String>,
    pub answer_count: Option<i64>,
    pub comment_count: Option<i64>,
    pub favorite_count: Option<i64>,
}

/// The tags in `<a><b>`, or in `|a|b|` as newer dumps have them.
pub fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(['<', '>', '|']).filter(|tag| !tag.is_empty())
}
