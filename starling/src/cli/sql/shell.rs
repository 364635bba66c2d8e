//! The shell: statements as they are typed, with a history, until `\q`.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{EditMode, Editor};
use tokio::runtime::Runtime;

use super::complete::ShellHelper;
use super::names::{Names, quoted};
use super::output::Output;
use super::statements::{Statement, split};
use super::{Session, SqlError};
use crate::cli::tell;

const PROMPT: &str = "sql> ";
const HISTORY_MAX: usize = 10_000;

/// The shell's own commands, what may follow each, and what it does.
pub(super) const COMMANDS: [(&str, &str, &str); 5] = [
    ("\\d", "[TABLE]", "the tables, or the columns of one"),
    ("\\timing", "", "say, or no longer say, how long a statement took"),
    ("\\o", "FORMAT", "print rows as table, csv or json"),
    ("\\?", "", "this help"),
    ("\\q", "", "leave, as Ctrl-D does"),
];

/// What was typed, if it is a command of the shell.
#[derive(Debug, PartialEq, Eq)]
enum Typed<'a> {
    Tables,
    Columns(&'a str),
    Timing,
    Output(Output),
    Help,
    Quit,
    Unknown(String),
    Statements(Vec<Statement>),
}

impl Typed<'_> {
    fn of(input: &str) -> Typed<'_> {
        let trimmed = input.trim();
        if !trimmed.starts_with('\\') {
            return Typed::Statements(split(input).all());
        }
        let (command, argument) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let argument = argument.trim().trim_end_matches(';');
        match (command.trim_end_matches(';'), argument) {
            ("\\d", "") => Typed::Tables,
            ("\\d", table) => Typed::Columns(table),
            ("\\timing", "") => Typed::Timing,
            ("\\o", format) => match Output::from_str(format, true) {
                Ok(Output::Parquet) | Err(_) => Typed::Unknown("\\o takes table, csv or json".to_owned()),
                Ok(output) => Typed::Output(output),
            },
            ("\\?", "") => Typed::Help,
            ("\\q", "") => Typed::Quit,
            (command, _) => {
                Typed::Unknown(format!("{command} is no command of this shell, or takes no argument; \\? lists them"))
            }
        }
    }
}

/// Asks and answers until the person leaves.
pub(super) fn run(runtime: &Runtime, session: &mut Session) -> Result<(), SqlError> {
    session.is_interactive = true;
    session.timing = true;
    let history = history_path();
    let mut editor = editor(history.as_deref())?;
    if !session.quiet {
        let (workers, threads) = (session.cluster.workers(), session.cluster.nthreads());
        tell(format_args!("{workers} workers, {threads} threads; end statements with ; and see \\? for more"));
    }
    loop {
        let names = runtime.block_on(Names::of(&session.frames));
        if let Some(helper) = editor.helper_mut() {
            helper.names = names;
        }
        let input = match editor.readline(PROMPT) {
            Ok(input) => input,
            // What was typed is given up, and the shell is not.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if input.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(input.trim())?;
        if let Some(path) = &history
            && let Err(error) = editor.append_history(path)
        {
            tracing::warn!(path = %path.display(), %error, "the history is not kept");
        }
        if !answer(runtime, session, &input) {
            return Ok(());
        }
    }
}

/// Whether the shell goes on.
fn answer(runtime: &Runtime, session: &mut Session, input: &str) -> bool {
    match Typed::of(input) {
        Typed::Quit => return false,
        Typed::Timing => {
            session.timing = !session.timing;
            tell(format_args!("timing is {}", if session.timing { "on" } else { "off" }));
        }
        Typed::Output(output) => session.output = output,
        Typed::Help => tell(format_args!("{}", help())),
        Typed::Unknown(problem) => tell(format_args!("error: {problem}")),
        Typed::Tables => statements(runtime, session, &[of_text(TABLES)]),
        Typed::Columns(table) => statements(runtime, session, &[of_text(&columns_of(table))]),
        Typed::Statements(all) => statements(runtime, session, &all),
    }
    true
}

/// Runs statements up to the first that fails.
fn statements(runtime: &Runtime, session: &Session, statements: &[Statement]) {
    for statement in statements {
        let outcome = runtime.block_on(Box::pin(session.run_or_cancel(statement, None)));
        if let Err(error) = outcome {
            tell(format_args!("error: {error}"));
            return;
        }
    }
}

const TABLES: &str = "SELECT table_catalog AS catalog, table_schema AS schema, table_name AS \"table\", table_type AS kind \
                      FROM information_schema.tables WHERE table_schema <> 'information_schema' ORDER BY 1, 2, 3";

/// `table` is taken as it stands in a query, so that a wrong one is told as it is there.
fn columns_of(table: &str) -> String {
    let is_written_out = table.contains(['"', '.']);
    format!("DESCRIBE {}", if is_written_out { table.to_owned() } else { quoted(&table.to_lowercase()) })
}

fn of_text(text: &str) -> Statement {
    Statement { text: text.to_owned(), line: 1, column: 1 }
}

fn help() -> String {
    let lines =
        COMMANDS.iter().map(|(command, argument, what)| format!("{:16} {what}", format!("{command} {argument}")));
    let more = "A statement ends with ; and may be many lines long. Tab completes, Ctrl-C cancels the query that runs.";
    lines.chain([more.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn editor(history: Option<&Path>) -> Result<Editor<ShellHelper, FileHistory>, SqlError> {
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .edit_mode(EditMode::Emacs)
        .auto_add_history(false)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(ShellHelper { names: Names::default() }));
    if let Some(path) = history {
        match create_private(path).map_err(ReadlineError::from).and_then(|()| editor.load_history(path)) {
            Ok(()) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "there is no history"),
        }
    }
    Ok(editor)
}

/// `starling/sql_history` in the user's folder for state.
fn history_path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_STATE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(folder.join("starling").join("sql_history"))
}

/// Makes the file, if it is not there, and its folder: queries may hold what is nobody else's business.
fn create_private(path: &Path) -> std::io::Result<()> {
    let (mut folder, mut file) = (std::fs::DirBuilder::new(), OpenOptions::new());
    folder.recursive(true);
    file.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        folder.mode(0o700);
        file.mode(0o600);
    }
    if let Some(parent) = path.parent() {
        folder.create(parent)?;
    }
    file.open(path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_statements() {
        assert_eq!(Typed::of("\\d"), Typed::Tables);
        assert_eq!(Typed::of(" \\d  posts; "), Typed::Columns("posts"));
        assert_eq!(Typed::of("\\timing"), Typed::Timing);
        assert_eq!(Typed::of("\\o JSON"), Typed::Output(Output::Json));
        assert_eq!(Typed::of("\\o parquet"), Typed::Unknown("\\o takes table, csv or json".to_owned()));
        assert_eq!(Typed::of("\\q;"), Typed::Quit);
        assert_eq!(Typed::of("\\?"), Typed::Help);
        assert!(matches!(Typed::of("\\x"), Typed::Unknown(text) if text.starts_with("\\x is no command")));
        assert!(matches!(Typed::of("SELECT 1; SELECT '\\q';"), Typed::Statements(all) if all.len() == 2));
    }

    #[test]
    fn the_columns_of_a_table_are_asked_for_under_its_name_in_sql() {
        assert_eq!(columns_of("Posts"), "DESCRIBE posts");
        assert_eq!(columns_of("\"Posts\""), "DESCRIBE \"Posts\"");
        assert_eq!(columns_of("s.posts"), "DESCRIBE s.posts");
        assert_eq!(columns_of("a b"), "DESCRIBE \"a b\"");
    }

    #[test]
    fn the_help_names_every_command() {
        let help = help();
        assert!(COMMANDS.iter().all(|(command, ..)| help.contains(command)), "{help}");
    }

    #[cfg(unix)]
    #[test]
    fn the_history_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/starling/sql_history");
        create_private(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        std::fs::write(&path, "SELECT 1;\n").unwrap();
        create_private(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "SELECT 1;\n");
    }
}
