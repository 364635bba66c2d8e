//! What a cluster survives, and what it does not.

/// A node that has a vote in who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub(super) name: String,
    /// Whether it answers.
    pub(super) is_live: bool,
    /// Whether it keeps its part of the log in a data directory, and so comes back as itself.
    pub(super) has_data: bool,
}

/// What these voters and workers do not survive, in sentences without their full stops; the voters come first.
pub(super) fn cannot_survive(voters: &[Voter], workers: &[String]) -> Vec<String> {
    let mut sentences = vec![of_voters(voters)];
    sentences.extend(of_memory(voters));
    sentences.extend(of_workers(workers));
    sentences
}

/// How many make a majority.
fn majority(voters: &[Voter]) -> usize {
    voters.len() / 2 + 1
}

fn of_voters(voters: &[Voter]) -> String {
    let all = names(voters, |_| true);
    let live = voters.iter().filter(|voter| voter.is_live).count();
    let spare = live.checked_sub(majority(voters));
    match (voters, spare) {
        ([], _) => "there is no voter: nothing is decided here until a scheduler is started".to_owned(),
        (_, None) => {
            let (answer, missing) = (if live == 1 { "answers" } else { "answer" }, majority(voters) - live);
            let down = voters.len() - live;
            let back = match (missing, down) {
                (1, 1) => format!("{} is back", names(voters, |voter| !voter.is_live)),
                (1, _) => format!("one of {} is back", names(voters, |voter| !voter.is_live)),
                _ => format!("{} of {} are back", word(missing), names(voters, |voter| !voter.is_live)),
            };
            format!("{live} of {} voters {answer}: nothing is decided here until {back}", voters.len())
        }
        ([only], Some(_)) if only.has_data => {
            format!("if {all} is lost, nothing goes on until {all} is started again with its data directory")
        }
        ([_], Some(_)) => format!(
            "if {all} is lost, jobs of connected clients continue once a scheduler is started again; detached jobs and data \
             sets are lost"
        ),
        (_, Some(spare)) if live == voters.len() => match spare {
            0 => format!("the loss of any one of {all} stops the cluster until it is back"),
            _ => format!("survives the loss of any {} of {all}; not of {} at a time", word(spare), word(spare + 1)),
        },
        (_, Some(spare)) => {
            let down = voters.len() - live;
            let (is, down) = (if down == 1 { "is" } else { "are" }, word(down));
            let down = format!("{} {is} down, {down} of the voters {all}", names(voters, |voter| !voter.is_live));
            match spare {
                0 => format!("{down}: the loss of another one stops the cluster until one is back"),
                1 => format!("{down}: survives the loss of another one; not of two at a time"),
                _ => format!("{down}: survives the loss of {} others; not of {}", word(spare), word(spare + 1)),
            }
        }
    }
}

/// Whether so many voters keep their log in memory alone that stopping them loses it.
fn of_memory(voters: &[Voter]) -> Option<String> {
    let in_memory = voters.iter().filter(|voter| !voter.has_data).count();
    // With so many gone for good there is never a majority again.
    let fatal = voters.len() - majority(voters).min(voters.len()) + 1;
    (voters.len() > 1 && in_memory >= fatal).then(|| {
        let without = names(voters, |voter| !voter.has_data);
        let which = if in_memory == fatal { without } else { format!("{} of {without}", word(fatal)) };
        format!(
            "a voter without a data directory does not come back once it is stopped: if {which} {}, detached jobs and data \
             sets are lost",
            if fatal == 1 { "is" } else { "are" }
        )
    })
}

fn of_workers(workers: &[String]) -> Option<String> {
    match workers {
        [] => Some("there is no worker: nothing runs until one joins".to_owned()),
        [only] => Some(format!("{only} is the only worker: if it is lost, nothing runs until another one joins")),
        _ => None,
    }
}

fn names(voters: &[Voter], which: impl Fn(&Voter) -> bool) -> String {
    voters.iter().filter(|voter| which(voter)).map(|voter| voter.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn word(number: usize) -> String {
    match number {
        1 => "one".to_owned(),
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        4 => "four".to_owned(),
        5 => "five".to_owned(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters A, B, ...: a capital has a data directory, a `-` behind one is down.
    fn voters(text: &str) -> Vec<Voter> {
        let voters = text.split_whitespace().map(|voter| {
            let name = voter.trim_end_matches('-');
            Voter {
                name: name.to_uppercase(),
                is_live: name == voter,
                has_data: name.chars().all(|letter| letter.is_ascii_uppercase()),
            }
        });
        voters.collect()
    }

    fn told(text: &str) -> Vec<String> {
        cannot_survive(&voters(text), &["w".to_owned(), "x".to_owned()])
    }

    #[test]
    fn one_voter_is_all_there_is() {
        assert_eq!(told(""), ["there is no voter: nothing is decided here until a scheduler is started"]);
        assert_eq!(
            told("a"),
            [
                "if A is lost, jobs of connected clients continue once a scheduler is started again; detached jobs and data \
              sets are lost"
            ]
        );
        assert_eq!(told("A"), ["if A is lost, nothing goes on until A is started again with its data directory"]);
        assert_eq!(told("A-"), ["0 of 1 voters answer: nothing is decided here until A is back"]);
    }

    #[test]
    fn three_voters_survive_the_loss_of_one() {
        assert_eq!(told("A B C"), ["survives the loss of any one of A, B, C; not of two at a time"]);
        assert_eq!(
            told("A B C-"),
            ["C is down, one of the voters A, B, C: the loss of another one stops the cluster until one is back"]
        );
        assert_eq!(told("A B- C-"), ["1 of 3 voters answers: nothing is decided here until one of B, C is back"]);
        assert_eq!(told("A- B- C-"), ["0 of 3 voters answer: nothing is decided here until two of A, B, C are back"]);
    }

    #[test]
    fn five_voters_survive_the_loss_of_two() {
        assert_eq!(told("A B C D E"), ["survives the loss of any two of A, B, C, D, E; not of three at a time"]);
        assert_eq!(
            told("A B C D E-"),
            ["E is down, one of the voters A, B, C, D, E: survives the loss of another one; not of two at a time"]
        );
        assert_eq!(
            told("A B C D- E-"),
            [
                "D, E are down, two of the voters A, B, C, D, E: the loss of another one stops the cluster until one is back"
            ]
        );
        assert_eq!(
            told("A B C- D- E-"),
            ["2 of 5 voters answer: nothing is decided here until one of C, D, E is back"]
        );
    }

    #[test]
    fn an_even_number_on_the_way_from_one_to_another_is_told_as_it_is() {
        assert_eq!(told("A B"), ["the loss of any one of A, B stops the cluster until it is back"]);
        assert_eq!(told("A B-"), ["1 of 2 voters answers: nothing is decided here until B is back"]);
        assert_eq!(told("A B C D"), ["survives the loss of any one of A, B, C, D; not of two at a time"]);
    }

    #[test]
    fn voters_that_remember_nothing_are_named_if_enough_of_them_could_be_stopped() {
        let of_memory = |text| told(text).get(1).cloned();
        assert_eq!(of_memory("A B c"), None);
        assert_eq!(of_memory("A B C d e"), None);
        let lost = |which| {
            Some(format!(
                "a voter without a data directory does not come back once it is stopped: if {which}, detached jobs and data \
                 sets are lost"
            ))
        };
        assert_eq!(of_memory("A b c"), lost("B, C are"));
        assert_eq!(of_memory("a b c"), lost("two of A, B, C are"));
        assert_eq!(of_memory("a b c d e"), lost("three of A, B, C, D, E are"));
        assert_eq!(of_memory("A b"), lost("B is"));
    }

    #[test]
    fn what_only_one_worker_does_is_told_and_what_none_does() {
        let of_workers = |workers: &[&str]| {
            let workers: Vec<String> = workers.iter().map(|&name| name.to_owned()).collect();
            cannot_survive(&voters("A B C"), &workers).get(1).cloned()
        };
        assert_eq!(of_workers(&["w", "x"]), None);
        assert!(of_workers(&["w"]).unwrap().starts_with("w is the only worker: if it is lost, nothing runs"));
        assert_eq!(of_workers(&[]).unwrap(), "there is no worker: nothing runs until one joins");
    }
}
