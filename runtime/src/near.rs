//! Which name was probably meant.

use strsim::levenshtein;

/// The name that was probably meant, if one is near: the case does not count.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known.into_iter().map(|known| (distance(name, known), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    is_near(distance, name, nearest).then_some(nearest)
}

/// How many letters `name` is away from `known`, if that is near enough to have been meant.
pub(crate) fn distance_if_near(name: &str, known: &str) -> Option<usize> {
    Some(distance(name, known)).filter(|&distance| is_near(distance, name, known))
}

fn distance(name: &str, known: &str) -> usize {
    levenshtein(&name.to_lowercase(), &known.to_lowercase())
}

/// More than half of the letters wrong is another name; two that changed places are two wrong ones.
fn is_near(distance: usize, name: &str, known: &str) -> bool {
    distance * 2 <= name.chars().count().max(known.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near_enough_to_have_been_meant() {
        let known = ["posts", "users", "PostTypeId"];
        assert_eq!(nearest("post", known), Some("posts"));
        assert_eq!(nearest("posttypeid", known), Some("PostTypeId"));
        assert_eq!(nearest("usres", known), Some("users"));
        assert_eq!(nearest("comments", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
