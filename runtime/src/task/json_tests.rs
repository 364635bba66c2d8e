//! Tasks of this file are called by their names, and run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;
use starling_macros::task;

use crate as starling_runtime;
use crate::parts::Parts;
use crate::task::TaskArgs;
use crate::value::Buffer;

use super::*;

/// What a person would pass as options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    min: i64,
    label: Option<String>,
}

#[task(crate = starling_runtime)]
fn every_kind(text: &str, list: &[i64], shared: Arc<BTreeMap<String, u128>>, mut limits: Limits) -> Vec<String> {
    limits.min += 1;
    vec![format!("{text} {list:?} {shared:?} {limits:?}")]
}

#[task(crate = starling_runtime)]
fn nothing() {}

#[task(crate = starling_runtime)]
fn halved(n: u64) -> Result<u64, std::num::TryFromIntError> {
    u32::try_from(n).map(|n| u64::from(n) / 2)
}

#[task(crate = starling_runtime)]
fn buffer_of(bytes: Buffer) -> (String, Buffer) {
    (format!("{bytes:?}"), bytes)
}

#[task(crate = starling_runtime)]
fn in_parts(_one: u8) -> Vec<Parts> {
    vec![Parts::live([Buffer::from(vec![0; 1_000]), Buffer::from(vec![0; 24])])]
}

#[task(crate = starling_runtime)]
fn of_parts(parts: Parts) -> usize {
    parts.len()
}

#[task(crate = starling_runtime)]
fn by_pair() -> BTreeMap<(u8, u8), u8> {
    BTreeMap::from([((1, 2), 3)])
}

#[task(crate = starling_runtime, json = false)]
fn internal() -> u8 {
    1
}

mod other {
    use crate as starling_runtime;

    #[starling_macros::task(crate = starling_runtime)]
    fn nothing() {}
}

const HERE: &str = "starling_runtime::task::json::tests::";

/// Calls the task as a worker would, and shows the result, once as it is and once as it comes over the wire.
fn run(name: &str, args: &str) -> Result<String, FailureCause> {
    let call = Call::from_json(name, args).unwrap();
    let def = call.def();
    let parts = call.into_parts().unwrap();
    assert_eq!(parts.inputs.len(), 0);
    let task = Tasks::linked().get(def.kind()).unwrap();
    let output = (task.entries.call)(&mut TaskArgs::new(&parts.payload, Vec::new()).unwrap())?;
    let shown = def.show(&output).unwrap();
    assert_eq!(def.show(&Value::Encoded(output.encode().unwrap())).unwrap(), shown);
    Ok(shown)
}

fn refusal(name: &str, args: &str) -> String {
    Call::from_json(name, args).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn arguments_of_every_kind_reach_the_task_as_they_were_written() {
    let shown = run(
        "every_kind",
        r#" [ "a, \"b\" ]", [1, -2],{"most": 340282366920938463463374607431768211455} ,{"label": null, "min": 6}] "#,
    );
    let expected =
        r#"["a, \"b\" ] [1, -2] {\"most\": 340282366920938463463374607431768211455} Limits { min: 7, label: None }"]"#;
    assert_eq!(shown.unwrap(), expected);
    assert_eq!(run(&format!("{HERE}nothing"), "[ ]").unwrap(), "null");
}

#[test]
fn a_result_is_shown_as_what_is_in_its_ok_and_an_error_is_the_tasks_failure() {
    assert_eq!(run("halved", "[7]").unwrap(), "3");
    assert!(matches!(run("halved", "[18446744073709551615]"), Err(FailureCause::Error { .. })));
}

#[test]
fn bulk_bytes_are_shown_by_their_size_and_written_as_a_string() {
    assert_eq!(run("buffer_of", r#"["naïve"]"#).unwrap(), r#"["Buffer(6 bytes)",{"bytes":6}]"#);
    let shown = run("in_parts", "[0]").unwrap();
    let shown: Vec<BTreeMap<String, u64>> = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown.len(), shown[0]["parts"]), (1, 2));
    assert!((1_024..1_100).contains(&shown[0]["bytes"]), "{shown:?}");
    // Only while it is shown.
    let buffer = Buffer::from(vec![1, 2]);
    assert_eq!(serde_json::to_string(&buffer).unwrap(), "[1,2]");
    assert_eq!(Encoded::of(&buffer).unwrap().buffers.len(), 1);
}

#[test]
fn what_cannot_be_written_down_is_refused_and_never_shown_as_something_else() {
    assert!(refusal("of_parts", "[[1, 2, 3]]").contains("a value in parts cannot be written as text"));
    assert!(
        refusal("internal", "[]")
            .ends_with("internal takes or gives what only a program can make: it cannot be called by its name")
    );
    let def = Call::from_json("by_pair", "[]").unwrap().def();
    let error = def.show(&Value::live(BTreeMap::from([((1_u8, 2_u8), 3_u8)]))).unwrap_err().to_string();
    assert!(error.contains("cannot be written as JSON: key must be a string"), "{error}");
    let error = def.show(&Value::live(7_u8)).unwrap_err().to_string();
    assert!(error.starts_with("the value has the type u8, but"), "{error}");
    let internal = Tasks::linked().find("tests::internal").unwrap();
    let error = internal.show(&Value::live(1_u8)).unwrap_err().to_string();
    assert_eq!(error, format!("the results of {HERE}internal are for programs only"));
}

#[test]
fn a_wrong_argument_is_named_with_the_task_its_parameters_and_its_place() {
    assert_eq!(
        refusal("halved", r#"["three"]"#),
        format!(
            "argument 1 of {HERE}halved(n: u64) is \"three\", which is no u64: invalid type: string \"three\", expected \
             u64 at line 1 column 7"
        )
    );
    let limits = r#"["", [], {}, {"min": 1.5, "label": "a very long label that goes on and on and on without end"}]"#;
    let error = refusal("every_kind", limits);
    let beginning = format!(
        "argument 4 of {HERE}every_kind(text: &str, list: &[i64], shared: Arc<BTreeMap<String, u128>>, limits: Limits) \
         is {{\"min\": 1.5, \"label\": \"a very long label that goes on and on..., which is no Limits: "
    );
    assert!(error.starts_with(&beginning), "{error}");
    assert_eq!(refusal("halved", "[]"), format!("{HERE}halved(n: u64) takes 1 argument, not 0"));
    assert_eq!(refusal("halved", "[1, 2]"), format!("{HERE}halved(n: u64) takes 1 argument, not 2"));
}

#[test]
fn arguments_that_are_no_array_are_refused_by_what_is_wrong_with_them() {
    for (args, problem) in [
        ("", "it does not begin with ["),
        ("7", "it does not begin with ["),
        ("[7", "it has no ] at its end"),
        ("[", "it has no ] at its end"),
        ("[7] 8", "something follows after its end"),
        ("[]]", "something follows after its end"),
        ("[7 8]", "after element 1 comes neither a comma nor ]"),
        ("[1, a.txt]", "element 2: expected value at line 1 column 1"),
        ("[7,]", "element 2: expected value at line 1 column 1"),
        ("[\"a]", "element 1: EOF while parsing a string at line 1 column 3"),
    ] {
        let error = refusal("halved", args);
        let start = format!("the arguments of {HERE}halved(n: u64) are no array in JSON, such as [\"a.txt\", 3]: ");
        assert_eq!(error.strip_prefix(&start), Some(problem), "{args}: {error}");
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(refusal("halved", &deep).contains("is [[[[[["), "refused, not a stack that overflows");
}

#[test]
fn a_task_is_found_by_the_end_of_its_path_if_that_fits_no_other() {
    assert_eq!(Call::from_json("tests::halved", "[1]").unwrap().def().name, format!("{HERE}halved"));
    assert_eq!(
        refusal("nothing", "[]"),
        format!("nothing may be any of {HERE}nothing, {HERE}other::nothing: give more of its path")
    );
    assert!(Call::from_json("other::nothing", "[]").is_ok());
    // Only whole segments count.
    assert_eq!(refusal("alved", "[1]"), format!("this program has no task alved: did you mean {HERE}halved?"));
    assert_eq!(refusal("haled", "[1]"), format!("this program has no task haled: did you mean {HERE}halved?"));
    let all = refusal("something-else", "[]");
    assert!(all.contains(&format!("did you mean {HERE}buffer_of, ")) && !all.contains("internal"), "{all}");
    let none = find("count", &[]).err().unwrap().to_string();
    assert!(none.contains("calls starling::main()"), "{none}");
}
