use std::sync::Arc;

use starling_core::failure::FailureCause;

use super::*;
use crate::task::{Call, Delayed, Entries, TaskDef, key};

static WORK: TaskDef = TaskDef {
    name: "crate::work",
    signature: "(u64) -> u64",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(|_| Err(FailureCause::UnknownKind)), items: None },
};

fn call() -> Call<u64> {
    Call::new(&WORK)
}

fn diamond() -> Delayed<u64> {
    let load = call().arg(7_u64).delayed().name("load \"a\" <&>");
    let [left, right] = ["left", "right"].map(|name| call().arg::<u64>(&load).delayed().name(name));
    call().arg::<Vec<u64>>(vec![left.clone(), right, left]).delayed()
}

#[test]
fn a_graph_is_told_to_graphviz_with_names_and_arrows() {
    let mut graph = diamond().graph().unwrap();
    graph.add("of a name", call().arg::<u64>(key("gone"))).unwrap();
    let dot = graph.to_dot();
    let expected = r#"digraph {
  node [shape=box, style=rounded, fontname="sans-serif"];
  n0 [label="work"];
  n1 [label="left"];
  n2 [label="right"];
  n3 [label="load \"a\" <&>"];
  n4 [label="of a name\nwork"];
  n5 [label="gone is missing", shape=ellipse];
  n1 -> n0;
  n2 -> n0;
  n3 -> n1;
  n3 -> n2;
  n5 -> n4;
}
"#;
    assert_eq!(dot, expected);
}

#[cfg(feature = "visualize")]
#[test]
fn a_picture_has_all_names_escaped_and_an_arrow_for_each_dependence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.svg");
    diamond().visualize(&path).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    for name in [">work<", ">left<", ">right<", "load &quot;a&quot; &lt;&amp;&gt;"] {
        assert!(svg.contains(name), "{name} is not in {svg}");
    }
    assert_eq!(svg.matches("<path id=\"arrow").count(), 4);
    Graph::new().visualize(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</svg>"));
}

#[cfg(feature = "visualize")]
#[test]
fn what_is_too_large_or_cyclic_is_refused_with_the_remedy_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.svg");
    // Few tasks, but arrows over many rows.
    let mut chain = vec![call().delayed()];
    for at in 0..70 {
        let all = chain[..=at].to_vec();
        chain.push(call().arg::<Vec<u64>>(all).delayed());
    }
    let error = chain[70].visualize(&path).unwrap_err();
    assert!(matches!(error, DrawError::TooLarge { tasks: 71, arrows: 2485 }), "{error}");
    let mut wide = Graph::new();
    for number in 0..2_000 {
        wide.add(number.to_string(), call()).unwrap();
    }
    assert!(wide.visualize(&path).unwrap_err().to_string().contains("write a .dot file"));
    let mut cyclic = Graph::new();
    cyclic.add("a", call().arg::<u64>(key("b"))).unwrap();
    cyclic.add("b", call().arg::<u64>(key("a"))).unwrap();
    assert!(matches!(cyclic.visualize(&path), Err(DrawError::Cyclic)));
    assert!(matches!(cyclic.visualize(folder.path().join("graph.png")), Err(DrawError::UnknownFormat(_))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    wide.visualize(folder.path().join("graph.dot")).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn long_names_are_cut_between_characters() {
    assert_eq!(shortened(&"ä".repeat(61)), format!("{}…", "ä".repeat(60)));
    assert_eq!(shortened("a\u{7}b"), "ab");
}
