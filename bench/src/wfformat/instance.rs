//! A workflow instance in the JSON format of WfCommons: reads it, or says which task is wrong.
//!
//! Two forms are known. Schemas 1.5 and 1.6 have `workflow.specification`, which says who needs whom, and
//! `workflow.execution`, which says how long each task took. Schemas 1.0 to 1.4 have one list, `workflow.tasks` or
//! `workflow.jobs`, that says both.
//! <https://github.com/wfcommons/WfFormat>

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A workflow and how it once ran.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workflow {
    /// Every task stands after its parents.
    pub(super) tasks: Vec<Task>,
    /// How many output files have no size: they count as empty.
    pub(super) unsized_files: usize,
}

/// A task of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub(super) id: String,
    /// Finite, and not negative.
    pub(super) run_s: f64,
    /// The size of its output files. Finite, and not negative.
    pub(super) nbytes: f64,
    /// Places of tasks before this one, each once, rising.
    pub(super) parents: Vec<usize>,
}

/// Reads an instance.
///
/// # Errors
/// Each names the file, and the task if it is one that is wrong: no such file, no JSON, an unknown schema version, a task
/// without a run time or with a negative one, a parent or child that is not there, a cycle.
pub(super) fn read(path: &Path) -> anyhow::Result<Workflow> {
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

/// As [`read`], of the file's content.
pub(super) fn parse(text: &[u8]) -> anyhow::Result<Workflow> {
    let document: Value = serde_json::from_slice(text).context("this is no JSON")?;
    let version = document.get("schemaVersion").and_then(Value::as_str);
    let version = version.context("there is no schemaVersion: this is no instance in WfFormat")?;
    let workflow = document.get("workflow").context("there is no workflow")?;
    let mut stated = match version {
        "1.0" | "1.1" | "1.2" | "1.3" | "1.4" => one_list(workflow)?,
        "1.5" | "1.6" => specification_and_execution(workflow)?,
        _ => bail!("schema version {version:?} is unknown: 1.0 to 1.6 are known"),
    };
    ensure!(!stated.tasks.is_empty(), "there are no tasks");
    let parents = parents_of(&stated.tasks)?;
    let order = topological_order(&stated.tasks, &parents)?;
    let mut place = vec![0; order.len()];
    for (at, &index) in order.iter().enumerate() {
        place[index] = at;
    }
    let tasks = order.into_iter().map(|index| {
        let task = &mut stated.tasks[index];
        let parents: BTreeSet<usize> = parents[index].iter().map(|parent| place[*parent]).collect();
        let parents = parents.into_iter().collect();
        Task { id: std::mem::take(&mut task.id), run_s: task.run_s, nbytes: task.nbytes, parents }
    });
    Ok(Workflow { tasks: tasks.collect(), unsized_files: stated.unsized_files })
}

/// What a file says, whatever its form: not yet checked against itself.
#[derive(Default)]
struct Stated {
    tasks: Vec<StatedTask>,
    unsized_files: usize,
}

struct StatedTask {
    id: String,
    /// What others may call it too.
    name: Option<String>,
    parents: Vec<String>,
    children: Vec<String>,
    run_s: f64,
    nbytes: f64,
}

/// A task of `workflow.specification` (from 1.5 on).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specified {
    id: String,
    name: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    output_files: Vec<String>,
}

/// A task of `workflow.execution` (from 1.5 on).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SizedFile {
    id: String,
    size_in_bytes: f64,
}

/// A task of the one list of the schemas before 1.5. Some files hold a field under its old and its new name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    id: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
    #[serde(default)]
    files: Vec<ListedFile>,
    runtime: Option<f64>,
    runtime_in_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedFile {
    link: String,
    /// Said to be in kilobytes, but the files have bytes, and WfCommons' own converter takes them so.
    size: Option<f64>,
    size_in_bytes: Option<f64>,
}

fn specification_and_execution(workflow: &Value) -> anyhow::Result<Stated> {
    let specification = workflow.get("specification").context("there is no workflow.specification")?;
    let execution = workflow.get("execution");
    let execution = execution.context("there is no workflow.execution, hence no run times: it was never run")?;
    let mut sizes: BTreeMap<String, f64> = BTreeMap::new();
    if specification.get("files").is_some() {
        for file in items::<SizedFile>(specification, "files")? {
            sizes.insert(file.id, file.size_in_bytes);
        }
    }
    let mut run_times: BTreeMap<String, Option<f64>> = BTreeMap::new();
    for Executed { id, runtime_in_seconds } in items(execution, "tasks")? {
        ensure!(!run_times.contains_key(&id), "task {id:?} stands twice in workflow.execution");
        run_times.insert(id, runtime_in_seconds);
    }
    let mut stated = Stated::default();
    for task in items::<Specified>(specification, "tasks")? {
        let Specified { id, name, parents, children, output_files } = task;
        let run_s = run_time(&id, run_times.remove(&id).flatten())?;
        let nbytes = output_bytes(&id, output_files.iter().map(|file| sizes.get(file).copied()), &mut stated)?;
        stated.tasks.push(StatedTask { id, name, parents, children, run_s, nbytes });
    }
    if let Some(id) = run_times.keys().next() {
        bail!("task {id:?} of workflow.execution is not in workflow.specification");
    }
    Ok(stated)
}

fn one_list(workflow: &Value) -> anyhow::Result<Stated> {
    let field = if workflow.get("tasks").is_some() { "tasks" } else { "jobs" };
    let mut stated = Stated::default();
    for task in items::<Listed>(workflow, field)? {
        let Listed { name, id, parents, children, files, runtime, runtime_in_seconds } = task;
        let run_s = run_time(&name, runtime_in_seconds.or(runtime))?;
        let outputs = files.iter().filter(|file| file.link.eq_ignore_ascii_case("output"));
        let nbytes = output_bytes(&name, outputs.map(|file| file.size_in_bytes.or(file.size)), &mut stated)?;
        // Names are not always distinct where there are ids.
        let (id, name) = match id {
            Some(id) => (id, Some(name)),
            None => (name, None),
        };
        stated.tasks.push(StatedTask { id, name, parents, children, run_s, nbytes });
    }
    Ok(stated)
}

/// The elements of a list of objects.
fn items<T: DeserializeOwned>(holder: &Value, field: &str) -> anyhow::Result<Vec<T>> {
    let list = holder.get(field).and_then(Value::as_array);
    let list = list.with_context(|| format!("there is no list of {field}"))?;
    let read = |(at, item): (usize, &Value)| {
        let named = item.get("id").or_else(|| item.get("name")).and_then(Value::as_str);
        T::deserialize(item).with_context(|| format!("{field}[{at}] ({:?})", named.unwrap_or("without a name")))
    };
    list.iter().enumerate().map(read).collect()
}

fn run_time(id: &str, run_s: Option<f64>) -> anyhow::Result<f64> {
    let run_s = run_s.with_context(|| format!("task {id:?} has no run time"))?;
    ensure!(run_s.is_finite() && run_s >= 0.0, "task {id:?} has a run time of {run_s} s");
    Ok(run_s)
}

fn output_bytes(id: &str, sizes: impl Iterator<Item = Option<f64>>, stated: &mut Stated) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for size in sizes {
        let Some(size) = size else {
            stated.unsized_files += 1;
            continue;
        };
        ensure!(size.is_finite() && size >= 0.0, "an output file of task {id:?} has a size of {size} bytes");
        sum += size;
    }
    Ok(sum)
}

/// The parents of each task, by number, from what they and what their parents say.
fn parents_of(tasks: &[StatedTask]) -> anyhow::Result<Vec<BTreeSet<usize>>> {
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, task) in tasks.iter().enumerate() {
        ensure!(ids.insert(&task.id, number).is_none(), "two tasks are called {:?}", task.id);
    }
    let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, task) in tasks.iter().enumerate() {
        names.entry(task.name.as_deref().unwrap_or(&task.id)).or_default().push(number);
    }
    let find = |of: &str, relation: &str, called: &str| -> anyhow::Result<usize> {
        match (ids.get(called), names.get(called).map(Vec::as_slice)) {
            (Some(number), _) | (None, Some([number])) => Ok(*number),
            (None, Some([_, _, ..])) => {
                bail!("task {of:?} has a {relation} {called:?}, which several tasks are called")
            }
            (None, None | Some([])) => bail!("task {of:?} has a {relation} {called:?}, which is not there"),
        }
    };
    let mut parents = vec![BTreeSet::new(); tasks.len()];
    for (number, task) in tasks.iter().enumerate() {
        for parent in &task.parents {
            parents[number].insert(find(&task.id, "parent", parent)?);
        }
        for child in &task.children {
            parents[find(&task.id, "child", child)?].insert(number);
        }
    }
    Ok(parents)
}

/// The tasks' numbers, parents first, otherwise as they stand in the file.
fn topological_order(tasks: &[StatedTask], parents: &[BTreeSet<usize>]) -> anyhow::Result<Vec<usize>> {
    let mut children = vec![Vec::new(); tasks.len()];
    for (number, parents) in parents.iter().enumerate() {
        for &parent in parents {
            children[parent].push(number);
        }
    }
    let mut missing: Vec<usize> = parents.iter().map(BTreeSet::len).collect();
    let mut ready: VecDeque<usize> = (0..tasks.len()).filter(|number| missing[*number] == 0).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(number) = ready.pop_front() {
        order.push(number);
        for &child in &children[number] {
            missing[child] -= 1;
            if missing[child] == 0 {
                ready.push_back(child);
            }
        }
    }
    if let Some(start) = missing.iter().position(|missing| *missing > 0) {
        let names: Vec<String> =
            cycle_from(start, parents, &missing).iter().map(|number| format!("{:?}", tasks[*number].id)).collect();
        bail!("a cycle: task {}", names.join(" needs "));
    }
    Ok(order)
}

/// A cycle, its first task at both ends: every task that misses a parent has one that does so too.
fn cycle_from(start: usize, parents: &[BTreeSet<usize>], missing: &[usize]) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        let Some(&parent) = parents[last].iter().find(|parent| missing[**parent] > 0) else { return path };
        let seen = path.iter().position(|number| *number == parent);
        path.push(parent);
        if let Some(first) = seen {
            return path.split_off(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEW: &str = include_str!("../../instances/diamond-1.5.json");
    const OLD: &str = include_str!("../../instances/diamond-1.4.json");

    fn parsed(document: &Value) -> anyhow::Result<Workflow> {
        parse(document.to_string().as_bytes())
    }

    fn error(document: &Value) -> String {
        format!("{:#}", parsed(document).unwrap_err())
    }

    /// Of the new form with one thing changed.
    fn changed(change: impl FnOnce(&mut Value)) -> Value {
        let mut document = serde_json::from_str(NEW).unwrap();
        change(&mut document);
        document
    }

    fn specified(document: &mut Value) -> &mut Value {
        &mut document["workflow"]["specification"]["tasks"]
    }

    fn executed(document: &mut Value) -> &mut Value {
        &mut document["workflow"]["execution"]["tasks"]
    }

    #[test]
    fn an_instance_is_read_parents_first() {
        let workflow = parse(NEW.as_bytes()).unwrap();
        let place = |id: &str| workflow.tasks.iter().position(|task| task.id.starts_with(id)).unwrap();
        assert_eq!(workflow.tasks.len(), 6);
        assert_eq!(workflow.unsized_files, 0);
        let split = &workflow.tasks[place("split")];
        assert_eq!((split.run_s, split.nbytes, split.parents.len()), (10.5, 4e6, 0));
        let merge = &workflow.tasks[place("merge")];
        assert_eq!((merge.run_s, merge.nbytes), (8.0, 1e5));
        assert_eq!(BTreeSet::from_iter(merge.parents.clone()), BTreeSet::from([place("count"), place("map")]));
        assert_eq!(workflow.tasks[place("report")].nbytes, 0.0);
        for (at, task) in workflow.tasks.iter().enumerate() {
            assert!(task.parents.iter().all(|parent| *parent < at), "{task:?}");
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let old = parse(OLD.as_bytes()).unwrap();
        let new = parse(NEW.as_bytes()).unwrap();
        let shapes = |workflow: &Workflow| -> Vec<_> {
            workflow.tasks.iter().map(|task| (task.run_s, task.nbytes, task.parents.clone())).collect()
        };
        assert_eq!(shapes(&old), shapes(&new));
    }

    #[test]
    fn the_newest_schema_has_the_same_form() {
        let document = changed(|document| document["schemaVersion"] = json!("1.6"));
        assert_eq!(parsed(&document).unwrap(), parse(NEW.as_bytes()).unwrap());
    }

    #[test]
    fn the_oldest_form_has_jobs_with_runtime_and_size() {
        let workflow = parsed(&json!({"name": "w", "schemaVersion": "1.0", "workflow": {"jobs": [
            {"name": "b", "type": "compute", "runtime": 2, "parents": ["a"]},
            {"name": "a", "type": "compute", "runtime": 1.5, "files": [
                {"name": "f", "size": 7, "link": "output"}, {"name": "g", "size": 9, "link": "input"}]},
        ]}}));
        let task = |id: &str, run_s, nbytes, parents| Task { id: id.into(), run_s, nbytes, parents };
        assert_eq!(workflow.unwrap().tasks, [task("a", 1.5, 7.0, vec![]), task("b", 2.0, 0.0, vec![0])]);
    }

    #[test]
    fn a_child_that_only_its_parent_names_is_a_child() {
        let document = changed(|document| specified(document)[2]["parents"] = json!([]));
        assert_eq!(parsed(&document).unwrap(), parse(NEW.as_bytes()).unwrap());
    }

    #[test]
    fn a_file_without_a_size_is_counted_and_empty() {
        let document = changed(|document| {
            document["workflow"]["specification"]["files"]
                .as_array_mut()
                .unwrap()
                .retain(|file| file["id"] != "map.bin");
        });
        let workflow = parsed(&document).unwrap();
        assert_eq!(workflow.unsized_files, 1);
        assert_eq!(workflow.tasks.iter().find(|task| task.id.starts_with("map")).unwrap().nbytes, 0.0);
    }

    #[test]
    fn what_is_no_instance_is_told() {
        assert!(format!("{:#}", parse(b"{\"name\": ").unwrap_err()).starts_with("this is no JSON: EOF"));
        assert!(error(&json!([1, 2])).contains("no schemaVersion"));
        assert!(error(&json!({"schemaVersion": "2.0", "workflow": {}})).contains("schema version \"2.0\" is unknown"));
        assert!(error(&json!({"schemaVersion": "1.5"})).contains("there is no workflow"));
        assert!(error(&json!({"schemaVersion": "1.4", "workflow": {}})).contains("there is no list of jobs"));
        assert!(error(&json!({"schemaVersion": "1.4", "workflow": {"tasks": []}})).contains("there are no tasks"));
        let unrun = changed(|document| drop(document["workflow"].as_object_mut().unwrap().remove("execution")));
        assert!(error(&unrun).contains("no workflow.execution"));
    }

    #[test]
    fn an_error_names_the_file() {
        let error = read(Path::new("/nowhere/w.json")).unwrap_err();
        assert!(format!("{error:#}").starts_with("/nowhere/w.json cannot be read: No such file"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"no").unwrap();
        let error = format!("{:#}", read(file.path()).unwrap_err());
        assert!(error.starts_with(&format!("{}: this is no JSON", file.path().display())), "{error}");
    }

    #[test]
    fn an_error_names_the_task() {
        let of = |change: &dyn Fn(&mut Value)| error(&changed(change));
        let missing = of(&|document| drop(executed(document).as_array_mut().unwrap().remove(1)));
        assert_eq!(missing, "task \"sort_ID0000002\" has no run time");
        let null = of(&|document| executed(document)[0]["runtimeInSeconds"] = Value::Null);
        assert_eq!(null, "task \"split_ID0000001\" has no run time");
        let negative = of(&|document| executed(document)[3]["runtimeInSeconds"] = json!(-1.5));
        assert_eq!(negative, "task \"map_ID0000004\" has a run time of -1.5 s");
        let text = of(&|document| executed(document)[3]["runtimeInSeconds"] = json!("long"));
        assert!(text.starts_with("tasks[3] (\"map_ID0000004\"): invalid type: string"), "{text}");
        let nameless = of(&|document| drop(specified(document)[1].as_object_mut().unwrap().remove("id")));
        assert!(nameless.contains("tasks[1] (\"split\"): missing field `id`"), "{nameless}");
        let dangling = of(&|document| specified(document)[4]["parents"] = json!(["nobody"]));
        assert_eq!(dangling, "task \"map_ID0000004\" has a parent \"nobody\", which is not there");
        let childless = of(&|document| specified(document)[4]["children"] = json!(["nobody"]));
        assert_eq!(childless, "task \"map_ID0000004\" has a child \"nobody\", which is not there");
        let twice = of(&|document| specified(document)[5]["id"] = json!("map_ID0000004"));
        assert!(twice.contains("\"map_ID0000004\""), "{twice}");
        let stranger =
            of(&|document| executed(document).as_array_mut().unwrap().push(json!({"id": "x", "runtimeInSeconds": 1})));
        assert_eq!(stranger, "task \"x\" of workflow.execution is not in workflow.specification");
        let size = of(&|document| document["workflow"]["specification"]["files"][5]["sizeInBytes"] = json!(-3));
        assert_eq!(size, "an output file of task \"map_ID0000004\" has a size of -3 bytes");
    }

    #[test]
    fn a_name_that_several_tasks_have_is_no_parent() {
        let listed =
            |id: &str, name: &str, parents: &[&str]| json!({"id": id, "name": name, "runtime": 1, "parents": parents});
        let document = |parent: &str| {
            json!({"schemaVersion": "1.3", "workflow": {"tasks": [
                listed("1", "a", &[]), listed("2", "a", &[]), listed("3", "b", &[parent])]}})
        };
        assert_eq!(error(&document("a")), "task \"3\" has a parent \"a\", which several tasks are called");
        assert_eq!(parsed(&document("2")).unwrap().tasks[2].parents, [1]);
    }

    #[test]
    fn a_cycle_is_told_with_its_tasks_only() {
        let listed = |name: &str, parents: &[&str]| json!({"name": name, "runtime": 1, "parents": parents});
        let document = |tasks: Value| json!({"schemaVersion": "1.4", "workflow": {"tasks": tasks}});
        let behind = document(json!([
            listed("d", &["c"]),
            listed("a", &["c"]),
            listed("b", &["a", "root"]),
            listed("c", &["b"]),
            listed("root", &[]),
        ]));
        assert_eq!(error(&behind), "a cycle: task \"c\" needs \"b\" needs \"a\" needs \"c\"");
        let own = document(json!([listed("a", &["a"])]));
        assert_eq!(error(&own), "a cycle: task \"a\" needs \"a\"");
    }
}
