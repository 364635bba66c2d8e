//! Statements in a text, between semicolons.

/// One statement, without its semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: String,
    /// The line of the whole text that it begins in, from 1.
    pub(super) line: usize,
    /// The character of that line that it begins at, from 1.
    pub(super) column: usize,
}

impl Statement {
    /// Where a place in the statement, line and column from 1, is in the whole text.
    pub(super) fn place(&self, line: usize, column: usize) -> (usize, usize) {
        let column = if line == 1 { self.column + column - 1 } else { column };
        (self.line + line - 1, column)
    }
}

/// The statements of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Those that a semicolon ends.
    pub(super) ended: Vec<Statement>,
    /// What is behind the last semicolon, if it is more than space and comments.
    pub(super) rest: Option<Statement>,
}

impl Split {
    /// All statements; the last one needs no semicolon.
    pub(super) fn all(self) -> Vec<Statement> {
        self.ended.into_iter().chain(self.rest).collect()
    }
}

/// Cuts a text at its semicolons, but for those in quotes and comments. Space and comments before a statement are left out.
pub(super) fn split(text: &str) -> Split {
    let mut split = Split::default();
    let mut scan = Scan { text, at: 0, line: 1, column: 1 };
    let mut begun: Option<(usize, usize, usize)> = None;
    while let Some(next) = scan.peek() {
        if next == ';' {
            if let Some((start, line, column)) = begun.take() {
                split.ended.push(Statement { text: text[start..scan.at].trim_end().to_owned(), line, column });
            }
            scan.step();
        } else if scan.skip_comment() {
        } else if next.is_whitespace() {
            scan.step();
        } else {
            begun.get_or_insert((scan.at, scan.line, scan.column));
            scan.skip_token(next);
        }
    }
    split.rest =
        begun.map(|(start, line, column)| Statement { text: text[start..].trim_end().to_owned(), line, column });
    split
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn step(&mut self) {
        let Some(next) = self.peek() else { return };
        self.at += next.len_utf8();
        (self.line, self.column) = if next == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
    }

    fn step_to(&mut self, end: usize) {
        while self.at < end {
            self.step();
        }
    }

    /// To behind the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &str) {
        let to = self.rest().find(end).map_or(self.text.len(), |found| self.at + found + end.len());
        self.step_to(to);
    }

    fn skip_comment(&mut self) -> bool {
        if self.rest().starts_with("--") {
            self.skip_past("\n");
            return true;
        }
        if !self.rest().starts_with("/*") {
            return false;
        }
        let mut depth = 0_usize;
        while self.peek().is_some() {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.step_to(self.at + 2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.step_to(self.at + 2);
                if depth == 0 {
                    break;
                }
            } else {
                self.step();
            }
        }
        true
    }

    /// Past a quoted text, or one character of anything else. A doubled quote is two texts, which comes to the same.
    fn skip_token(&mut self, next: char) {
        match next {
            '\'' | '"' | '`' => {
                self.step();
                self.skip_past(next.encode_utf8(&mut [0; 4]));
            }
            '$' => match self.dollar_quote() {
                Some(quote) => {
                    self.step_to(self.at + quote.len());
                    self.skip_past(&quote);
                }
                None => self.step(),
            },
            _ => self.step(),
        }
    }

    /// `$$` or `$name$`, if that is what begins here.
    fn dollar_quote(&self) -> Option<String> {
        let before = self.text[..self.at].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
            return None;
        }
        let name_end = self.rest()[1..].find('$')?;
        let name = &self.rest()[1..=name_end];
        let is_name =
            name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_numeric());
        is_name.then(|| format!("${name}$"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(text).all().into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        assert_eq!(texts("SELECT 1; SELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(texts("SELECT ';' , \"a;b\", `c;d`;x"), ["SELECT ';' , \"a;b\", `c;d`", "x"]);
        assert_eq!(texts("SELECT 'it''s; so'; y"), ["SELECT 'it''s; so'", "y"]);
        assert_eq!(texts("SELECT 1 -- a; b\n + 2; z"), ["SELECT 1 -- a; b\n + 2", "z"]);
        assert_eq!(texts("SELECT /* a; /* b; */ c; */ 1; z"), ["SELECT /* a; /* b; */ c; */ 1", "z"]);
        assert_eq!(texts("SELECT $$a;b$$, $t$;$$;$t$; z"), ["SELECT $$a;b$$, $t$;$$;$t$", "z"]);
        assert_eq!(texts("SELECT $1; SELECT a$b; z"), ["SELECT $1", "SELECT a$b", "z"]);
    }

    #[test]
    fn space_and_comments_alone_are_no_statement() {
        assert!(split("  ;; -- nothing\n /* here */ ;\n").all().is_empty());
        assert_eq!(texts("-- first\nSELECT 1 ;\n-- last"), ["SELECT 1"]);
    }

    #[test]
    fn what_no_semicolon_ends_is_the_rest() {
        let open = split("SELECT 1; SELECT 'a;");
        assert_eq!(open.ended.len(), 1);
        assert_eq!(open.rest.map(|rest| rest.text).as_deref(), Some("SELECT 'a;"));
        assert_eq!(split("SELECT 1; -- done").rest, None);
        assert_eq!(split("/* open; ").all(), []);
    }

    #[test]
    fn a_statement_knows_its_place_in_the_text() {
        let all = split("SELECT 1;\n\n  SELECT ü,\n x").all();
        assert_eq!((all[1].line, all[1].column), (3, 3));
        assert_eq!(all[1].place(1, 8), (3, 10));
        assert_eq!(all[1].place(2, 2), (4, 2));
    }
}
