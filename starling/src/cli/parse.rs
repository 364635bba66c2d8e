//! Values of options, from their texts.

use starling_actors::RecordConfig;
use starling_collections::files::Targets;
use starling_core::ids::{JobId, TaskId};
use starling_core::spec::{Amount, NAME_BYTES_MAX, REQUIREMENTS_MAX, Resources};
use starling_runtime::mesh::{Multiaddr, parse_addr};

use super::CliError;

pub(super) fn parse_addrs(texts: &[impl AsRef<str>]) -> Result<Vec<Multiaddr>, CliError> {
    Ok(texts.iter().map(|text| parse_addr(text.as_ref())).collect::<Result<Vec<_>, _>>()?)
}

/// Bytes from a text such as `512MiB`, `4GB` or `1000000`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("{text} is no size: write it as 4GiB, 512MB or a number of bytes")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no size: write it as 4GiB or 512MB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is more than can be counted"))
}

/// As [`parse_size`], for what a flight record may take on disk.
pub(super) fn parse_record_limit(text: &str) -> Result<u64, String> {
    let limit = parse_size(text)?;
    if limit < RecordConfig::LIMIT_BYTES_MIN {
        return Err(format!("{text} is too little for a record: give at least {}", RecordConfig::LIMIT_BYTES_MIN));
    }
    Ok(limit)
}

/// A worker's resources, from a text such as `gpu=1,disk=0.5`.
pub(super) fn parse_resources(text: &str) -> Result<Resources, String> {
    let mut resources = Resources::new();
    for part in text.split(',') {
        let (name, amount) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} says no amount: write resources as gpu=1,disk=0.5"))?;
        let (name, amount) = (name.trim(), amount.trim());
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("{name:?} is no name of a resource: give it 1 to {NAME_BYTES_MAX} bytes"));
        }
        let amount = Amount::parse(amount).ok_or_else(|| {
            format!("{amount:?} is no amount of {name}: write a number with at most three decimals, such as {name}=0.5")
        })?;
        if resources.insert(name.to_owned(), amount).is_some() {
            return Err(format!("the resource {name} is given twice: give it once"));
        }
    }
    if resources.len() > REQUIREMENTS_MAX {
        return Err(format!("{} resources are too many: give at most {REQUIREMENTS_MAX}", resources.len()));
    }
    Ok(resources)
}

/// A task's id as it is printed, such as `3141592653.17`.
pub(super) fn parse_task(text: &str) -> Result<TaskId, String> {
    let numbers = text.split_once('.').and_then(|(job, index)| Some((job.parse().ok()?, index.parse().ok()?)));
    let (job, index) = numbers.ok_or_else(|| {
        format!("{text} is no task: write it as it is printed, the job's number and the task's, such as 3141592653.17")
    })?;
    Ok(TaskId::new(JobId(job), index))
}

/// A job's id as it is printed.
pub(super) fn parse_job(text: &str) -> Result<JobId, String> {
    let job = text.parse().map_err(|_| format!("{text} is no job: write its number, as `node jobs` prints it"))?;
    Ok(JobId(job))
}

/// A name for a job: not empty, and not too long for those who list it.
pub(super) fn parse_job_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a job's name has 1 to {NAME_BYTES_MAX} bytes, not {}", text.len()));
    }
    Ok(text.to_owned())
}

/// The nodes that a file goes to, from a text such as `all`, `2` or `rack1-a,9f3c`.
pub(super) fn parse_targets(text: &str) -> Result<Targets, String> {
    if text == "all" {
        return Ok(Targets::All);
    }
    // An id may begin with digits only; one of many digits is no count.
    if let Ok(copies) = text.parse::<u16>() {
        return match copies {
            0 => Err("0 copies are none: write all, a number of nodes, or their names".to_owned()),
            copies => Ok(Targets::Some(copies.into())),
        };
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(format!("{text:?} has an empty name: write all, a number of nodes, or their names, as in a,b"));
    }
    Ok(Targets::Named(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("512 MB"), Ok(512_000_000));
        assert_eq!(parse_size("17"), Ok(17));
        assert!(parse_size("many").is_err());
        assert!(parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn resources_are_read_and_what_is_wrong_is_named() {
        let resources = parse_resources("gpu=1, disk = 0.5").unwrap();
        let expected = [("disk".to_owned(), Amount(500)), ("gpu".to_owned(), Amount::whole(1))];
        assert_eq!(resources, Resources::from(expected));
        for (text, named) in [
            ("", "says no amount"),
            ("gpu", "\"gpu\" says no amount"),
            ("gpu=1,", "says no amount"),
            ("=1", "is no name of a resource"),
            ("gpu=", "is no amount of gpu"),
            ("gpu=-1", "is no amount of gpu"),
            ("gpu=0.0001", "at most three decimals"),
            ("gpu=1,gpu=2", "gpu is given twice"),
        ] {
            let error = parse_resources(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(parse_resources(&format!("{}=1", "x".repeat(NAME_BYTES_MAX + 1))).is_err());
        let many: Vec<String> = (0..=REQUIREMENTS_MAX).map(|number| format!("r{number}=1")).collect();
        assert!(parse_resources(&many.join(",")).unwrap_err().contains("too many"));
        assert!(parse_resources(&many[1..].join(",")).is_ok());
    }

    #[test]
    fn a_task_is_read_as_it_is_printed() {
        let task = TaskId::new(JobId(u32::MAX), 17);
        assert_eq!(parse_task(&task.to_string()), Ok(task));
        for text in ["", "17", "1.", ".1", "1.2.3", "a.b", "4294967296.0", "-1.0"] {
            assert!(parse_task(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_are_all_a_number_or_names() {
        let named = |names: &[&str]| Ok(Targets::Named(names.iter().map(|&name| name.to_owned()).collect()));
        assert_eq!(parse_targets("all"), Ok(Targets::All));
        assert_eq!(parse_targets("2"), Ok(Targets::Some(2)));
        assert_eq!(parse_targets("worker-1"), named(&["worker-1"]));
        assert_eq!(parse_targets("a, 9f3c"), named(&["a", "9f3c"]));
        assert_eq!(parse_targets("3141592653589"), named(&["3141592653589"]));
        for text in ["", "0", "a,", ",a"] {
            assert!(parse_targets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_that_could_hold_nothing_is_refused() {
        assert_eq!(parse_record_limit("64MiB"), Ok(64 << 20));
        assert!(parse_record_limit("10").unwrap_err().contains("at least"));
        assert!(parse_record_limit("much").is_err());
    }
}
