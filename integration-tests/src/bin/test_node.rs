//! A full `node` that also holds the tests' tasks, as a user's own binary does.

fn main() -> std::process::ExitCode {
    starling_integration_tests::link();
    starling::main()
}
