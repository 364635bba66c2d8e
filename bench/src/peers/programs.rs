//! The peers that are Rust programs: built from `bench/peers/NAME`, each with its own lock file, under `.bench/` in the
//! repository. They answer as the scripts do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{Peer, run_quietly, tell};

/// The program of this peer, built if it is not.
pub(super) fn build(peer: Peer) -> anyhow::Result<PathBuf> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = bench.join("../.bench/programs");
    let program = target.join("release").join(format!("bench-peer-{peer}"));
    if !program.exists() {
        tell(format_args!("building {} in {}: this takes minutes", peer.packages().join(" "), target.display()));
    }
    // Cargo itself knows what has changed. The same one as has built this program, if that can be told.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]);
    command.arg(bench.join("peers").join(peer.name()).join("Cargo.toml")).arg("--target-dir").arg(&target);
    run_quietly(&mut command).with_context(|| format!("{peer} cannot be built"))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_that_are_told_are_those_that_are_built() {
        let manifests = [
            (Peer::Kameo, include_str!("../../peers/kameo/Cargo.toml")),
            (Peer::Ractor, include_str!("../../peers/ractor/Cargo.toml")),
        ];
        for (peer, manifest) in manifests {
            assert!(manifest.contains(&format!("name = \"bench-peer-{peer}\"")));
            for package in peer.packages() {
                let (name, version) = package.split_once("==").unwrap();
                let line = manifest.lines().find(|line| line.starts_with(&format!("{name} ="))).unwrap();
                assert!(line.contains(&format!("\"={version}\"")), "{line}");
            }
        }
    }
}
