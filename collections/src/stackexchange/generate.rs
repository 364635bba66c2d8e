//! Makes posts files like Stack Overflow's: the same file from the same seed, of any size, and what is true of it.
//!
//! Bodies are HTML in quoted fields, with newlines, commas and doubled quotes; answers follow their questions at some
//! distance; tags, owners and lengths are as uneven as in life.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::post::{ANSWER, QUESTION};
use super::report::{Facts, TOP_ANSWERERS, TOP_TAGS};
use super::time::{Moment, Month};

/// Changed when the same options give other bytes than before, so that cached files are told apart.
const VERSION: u32 = 1;

/// Posts are planned so many at a time: an answer is in the same batch as its question.
const BATCH: usize = 1024;

/// How far back an answer's question may be, in questions.
const OPEN_QUESTIONS: usize = 200;

/// What file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateOptions {
    /// The file ends with the first batch of posts that makes it at least so large, in bytes.
    pub size: u64,
    /// The same seed gives the same file.
    pub seed: u64,
    /// Whether newlines are left out of quoted fields, so that every record is one physical line.
    pub clean: bool,
}

impl Default for GenerateOptions {
    fn default() -> GenerateOptions {
        GenerateOptions { size: 200_000_000, seed: 1, clean: false }
    }
}

/// The file with these options in `folder`; made first if it is not there. It appears under its name only when it is
/// whole. Says whether it was made.
pub fn cached_posts(folder: &Path, options: &GenerateOptions) -> io::Result<(PathBuf, bool)> {
    let GenerateOptions { size, seed, clean } = options;
    let kind = if *clean { "clean" } else { "posts" };
    let name = format!("starling-{kind}-v{VERSION}-{size}-{seed}.csv");
    let path = folder.join(&name);
    if path.is_file() {
        return Ok((path, false));
    }
    fs::create_dir_all(folder)?;
    // Another process may be making the same file: each has its own until the rename, which puts either in place.
    let partial = folder.join(format!(".{name}.{}", std::process::id()));
    let made = File::create(&partial)
        .and_then(|mut file| generate(options, &mut file))
        .and_then(|_| fs::rename(&partial, &path));
    if made.is_err() {
        // Whatever could not be written is of no use; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&partial);
    }
    made.map(|()| (path, true))
}

/// Writes the file, and says what a report on it must find.
pub fn generate(options: &GenerateOptions, output: &mut impl Write) -> io::Result<Facts> {
    let mut generator = Generator::new(options);
    generator.text.extend_from_slice(
        b"Id,PostTypeId,AcceptedAnswerId,ParentId,CreationDate,Score,ViewCount,Body,OwnerUserId,Title,Tags,AnswerCount,\
          CommentCount,FavoriteCount\n",
    );
    let mut nbytes = 0;
    loop {
        nbytes += generator.text.len() as u64;
        output.write_all(&generator.text)?;
        generator.text.clear();
        if nbytes >= options.size {
            output.flush()?;
            return Ok(generator.tally.facts());
        }
        generator.batch();
    }
}

/// What becomes of a place in a batch.
#[derive(Clone, Copy)]
enum Planned {
    /// A question, with the places of its accepted answer and the number of its answers.
    Question { accepted: Option<usize>, answers: u32 },
    /// An answer to the question at a place.
    Answer { question: usize },
    /// The description of a tag.
    TagWiki,
}

struct Generator {
    random: Random,
    clean: bool,
    /// The batch under way.
    text: Vec<u8>,
    body: Vec<u8>,
    next_id: i64,
    clock: i64,
    plan: Vec<Planned>,
    dates: Vec<i64>,
    tally: Tally,
}

impl Generator {
    fn new(options: &GenerateOptions) -> Generator {
        Generator {
            random: Random(options.seed),
            clean: options.clean,
            text: Vec::with_capacity(8 << 20),
            body: Vec::new(),
            next_id: 1,
            // 2008-07-31T21:42:52, as it is with the first question of the real one.
            clock: 1_217_540_572_000,
            plan: Vec::new(),
            dates: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn batch(&mut self) {
        self.plan();
        for place in 0..BATCH {
            self.post(place);
        }
        self.next_id += BATCH as i64;
    }

    fn plan(&mut self) {
        self.plan.clear();
        self.dates.clear();
        let mut questions: Vec<usize> = Vec::new();
        for place in 0..BATCH {
            self.clock += 20_000 + self.random.below(400_000) as i64;
            self.dates.push(self.clock);
            let die = self.random.below(1000);
            if die < 8 {
                self.plan.push(Planned::TagWiki);
            } else if die < 320 || questions.is_empty() {
                questions.push(place);
                self.plan.push(Planned::Question { accepted: None, answers: 0 });
            } else {
                let open = questions.len().min(OPEN_QUESTIONS);
                let question = questions[questions.len() - 1 - self.random.skewed(open as u64) as usize];
                let accept = self.random.below(10) < 4;
                if let Planned::Question { accepted, answers } = &mut self.plan[question] {
                    *answers += 1;
                    if accept && accepted.is_none() {
                        *accepted = Some(place);
                    }
                }
                self.plan.push(Planned::Answer { question });
            }
        }
    }

    fn post(&mut self, place: usize) {
        let planned = self.plan[place];
        let date = Moment(self.dates[place]);
        let first = self.next_id;
        let kind = match planned {
            Planned::Question { .. } => QUESTION,
            Planned::Answer { .. } => ANSWER,
            Planned::TagWiki => 5,
        };
        let score = if kind == 5 { 0 } else { self.random.skewed(60) as i64 - 2 };
        push_number(&mut self.text, first + place as i64);
        self.text.push(b',');
        push_number(&mut self.text, i64::from(kind));
        self.text.push(b',');
        if let Planned::Question { accepted: Some(answer), .. } = planned {
            push_number(&mut self.text, first + answer as i64);
            self.tally.accepted += 1;
            self.tally.accepted_millis += self.dates[answer] - date.0;
        }
        self.text.push(b',');
        if let Planned::Answer { question } = planned {
            push_number(&mut self.text, first + question as i64);
        }
        self.text.push(b',');
        date.write(&mut self.text);
        self.text.push(b',');
        push_number(&mut self.text, score);
        self.text.push(b',');
        if kind == QUESTION {
            let views = 20 + self.random.skewed(50_000);
            push_number(&mut self.text, views as i64);
        }
        self.text.push(b',');
        self.body();
        self.text.push(b',');
        let owner = (self.random.below(50) > 0).then(|| 1 + self.random.skewed(20_000) as i64);
        if let Some(owner) = owner {
            push_number(&mut self.text, owner);
        }
        self.text.push(b',');
        self.tally.post(kind, score, owner);
        if let Planned::Question { answers, .. } = planned {
            self.title();
            self.text.push(b',');
            self.tags();
            self.text.push(b',');
            push_number(&mut self.text, i64::from(answers));
            self.tally.question(date.month());
        } else {
            self.text.extend_from_slice(b",,");
        }
        self.text.push(b',');
        let comments = self.random.skewed(12) as i64;
        push_number(&mut self.text, comments);
        self.text.push(b',');
        if kind == QUESTION && self.random.below(5) == 0 {
            let favorites = 1 + self.random.skewed(40) as i64;
            push_number(&mut self.text, favorites);
        }
        self.text.push(b'\n');
    }

    /// A body: paragraphs, and now and then code, a list or a quotation, about 1.3 kB on average.
    fn body(&mut self) {
        self.body.clear();
        let blocks = 1 + self.random.skewed(9);
        for _ in 0..blocks {
            match self.random.below(10) {
                0 | 1 => self.code(),
                2 => self.list(),
                _ => {
                    self.body.extend_from_slice(b"<p>");
                    let words = 15 + self.random.below(70);
                    self.words(words, true);
                    self.body.extend_from_slice(b"</p>\n\n");
                }
            }
        }
        if self.clean {
            self.body.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        }
        self.tally.body_bytes += self.body.len() as u64;
        push_quoted(&mut self.text, &self.body);
    }

    fn code(&mut self) {
        self.body.extend_from_slice(b"<pre><code>");
        for _ in 0..2 + self.random.below(10) {
            let line = CODE[self.random.below(CODE.len() as u64) as usize];
            self.body.extend_from_slice(line.as_bytes());
            self.body.push(b'\n');
        }
        self.body.extend_from_slice(b"</code></pre>\n\n");
    }

    fn list(&mut self) {
        self.body.extend_from_slice(b"<ul>\n");
        for _ in 0..2 + self.random.below(4) {
            self.body.extend_from_slice(b"<li>");
            let words = 5 + self.random.below(12);
            self.words(words, false);
            self.body.extend_from_slice(b"</li>\n");
        }
        self.body.extend_from_slice(b"</ul>\n\n");
    }

    /// Words with commas and, if `rich`, links and quotations between them.
    fn words(&mut self, count: u64, rich: bool) {
        for number in 0..count {
            // One draw for the word and what is around it: this loop makes nearly all of the file.
            let draw = self.random.next();
            let (die, comma) = ((draw >> 32) % 60, (draw >> 48).is_multiple_of(12));
            let word = WORDS[(((draw & 0xffff_ffff) * WORDS.len() as u64) >> 32) as usize].as_bytes();
            if number > 0 {
                self.body.extend_from_slice(if comma { b", " } else { b" " });
            }
            match die {
                0 if rich => {
                    self.body.extend_from_slice(b"<a href=\"http://example.com/");
                    self.body.extend_from_slice(word);
                    self.body.extend_from_slice(b"\" rel=\"nofollow\">");
                    self.body.extend_from_slice(word);
                    self.body.extend_from_slice(b"</a>");
                }
                1 if rich => {
                    self.body.push(b'"');
                    self.body.extend_from_slice(word);
                    self.body.push(b'"');
                }
                _ => self.body.extend_from_slice(word),
            }
        }
        self.body.push(b'.');
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.random.below(WORDS.len() as u64) as usize]
    }

    fn title(&mut self) {
        let quoted = self.random.below(8) == 0;
        if quoted {
            self.text.extend_from_slice(b"\"How, or why, does ");
        } else {
            self.text.extend_from_slice(b"How to ");
        }
        for _ in 0..4 + self.random.below(6) {
            let word = self.word();
            self.text.extend_from_slice(word.as_bytes());
            self.text.push(b' ');
        }
        self.text.extend_from_slice(if quoted { b"\"\"at all\"\"?\"" } else { b"well?" });
    }

    fn tags(&mut self) {
        let count = 1 + self.random.below(5) as usize;
        let mut chosen = [usize::MAX; 5];
        for number in 0..count {
            let tag = self.random.skewed(TAGS.len() as u64 * 32) as usize;
            if chosen[..number].contains(&tag) {
                continue;
            }
            chosen[number] = tag;
            self.tally.tag(tag);
            self.text.push(b'<');
            push_tag(&mut self.text, tag);
            self.text.push(b'>');
        }
    }
}

/// Tag number `tag`: a name, and for all but the most used ones a version.
fn push_tag(text: &mut Vec<u8>, tag: usize) {
    text.extend_from_slice(TAGS[tag % TAGS.len()].as_bytes());
    if tag >= TAGS.len() {
        text.push(b'-');
        push_number(text, (tag / TAGS.len()) as i64 + 1);
    }
}

fn push_number(text: &mut Vec<u8>, number: i64) {
    // Writing to a Vec cannot fail.
    let _ = write!(text, "{number}");
}

/// Appends a quoted field.
fn push_quoted(text: &mut Vec<u8>, field: &[u8]) {
    text.push(b'"');
    let mut rest = field;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        text.extend_from_slice(&rest[..=quote]);
        text.push(b'"');
        rest = &rest[quote + 1..];
    }
    text.extend_from_slice(rest);
    text.push(b'"');
}

/// SplitMix64: small, fast, and the same everywhere, as the files must be.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number below `limit`; small ones come much more often, about as in Zipf's law.
    fn skewed(&mut self, limit: u64) -> u64 {
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((uniform * uniform * uniform * limit as f64) as u64).min(limit.saturating_sub(1))
    }
}

/// What is true of the posts so far.
#[derive(Default)]
struct Tally {
    kinds: HashMap<u32, (u64, i64)>,
    tags: HashMap<usize, u64>,
    months: HashMap<Month, u64>,
    answers_by_owner: HashMap<i64, u64>,
    body_bytes: u64,
    accepted: u64,
    accepted_millis: i64,
}

impl Tally {
    fn post(&mut self, kind: u32, score: i64, owner: Option<i64>) {
        let sums = self.kinds.entry(kind).or_default();
        sums.0 += 1;
        sums.1 += score;
        if let (ANSWER, Some(owner)) = (kind, owner) {
            *self.answers_by_owner.entry(owner).or_default() += 1;
        }
    }

    fn question(&mut self, month: Month) {
        *self.months.entry(month).or_default() += 1;
    }

    fn tag(&mut self, tag: usize) {
        *self.tags.entry(tag).or_default() += 1;
    }

    fn facts(self) -> Facts {
        let tags = self.tags.into_iter().map(|(tag, count)| {
            let mut name = Vec::new();
            push_tag(&mut name, tag);
            (String::from_utf8_lossy(&name).into_owned(), count)
        });
        let mut facts = Facts {
            records: self.kinds.values().map(|(count, _)| count).sum(),
            by_post_type: self.kinds.iter().map(|(kind, (count, _))| (*kind, *count)).collect(),
            score_sum_by_post_type: self.kinds.iter().map(|(kind, (_, sum))| (*kind, *sum)).collect(),
            top_tags: most(tags.collect(), TOP_TAGS),
            questions_per_month: self.months.into_iter().map(|(month, count)| (month.to_string(), count)).collect(),
            body_utf8_bytes: self.body_bytes,
            // Every generated answer has its question.
            answers_with_parent: self.kinds.get(&ANSWER).map_or(0, |(count, _)| *count),
            top_answerers: most(self.answers_by_owner.into_iter().collect(), TOP_ANSWERERS),
            ..Facts::default()
        };
        facts.set_means(self.accepted, self.accepted_millis);
        facts
    }
}

/// Those with the largest counts, of equals the least names.
fn most<T: Ord>(mut counts: Vec<(T, u64)>, limit: usize) -> Vec<(T, u64)> {
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counts.truncate(limit);
    counts
}

const TAGS: [&str; 32] = [
    "c#",
    "java",
    "javascript",
    "php",
    "python",
    "jquery",
    "android",
    "html",
    "c++",
    "ios",
    "css",
    "mysql",
    "sql",
    "asp.net",
    "objective-c",
    "ruby-on-rails",
    ".net",
    "c",
    "arrays",
    "r",
    "json",
    "regex",
    "ajax",
    "xml",
    "linux",
    "django",
    "git",
    "windows",
    "haskell",
    "scala",
    "rust",
    "multithreading",
];

const CODE: [&str; 12] = [
    "for (int i = 0; i &lt; n; i++) {",
    "    printf(\"%d, %d\\n\", i, values[i]);",
    "}",
    "def total(items, start=0):",
    "    return sum((item.price for item in items), start)",
    "SELECT name, count(*) FROM users GROUP BY name;",
    "var element = document.getElementById(\"main\");",
    "if (element == null) { throw new Error(\"no element, sorry\"); }",
    "let parts: Vec&lt;&amp;str&gt; = line.split(',').collect();",
    "$(\"#list li\").each(function (i, item) { console.log(i, item); });",
    "try { read(path); } catch (IOException e) { e.printStackTrace(); }",
    "",
];

const WORDS: [&str; 96] = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "that",
    "it",
    "for",
    "with",
    "this",
    "on",
    "be",
    "are",
    "as",
    "have",
    "not",
    "you",
    "can",
    "from",
    "but",
    "an",
    "there",
    "what",
    "when",
    "which",
    "would",
    "use",
    "using",
    "code",
    "function",
    "value",
    "data",
    "file",
    "object",
    "class",
    "method",
    "array",
    "string",
    "error",
    "server",
    "client",
    "query",
    "table",
    "column",
    "thread",
    "memory",
    "loop",
    "index",
    "return",
    "variable",
    "type",
    "list",
    "page",
    "button",
    "click",
    "event",
    "request",
    "response",
    "user",
    "name",
    "time",
    "date",
    "number",
    "result",
    "problem",
    "solution",
    "example",
    "following",
    "works",
    "working",
    "however",
    "because",
    "trying",
    "getting",
    "called",
    "without",
    "another",
    "different",
    "application",
    "database",
    "connection",
    "exception",
    "library",
    "version",
    "project",
    "system",
    "question",
    "answer",
    "naïve",
    "café",
    "über",
    "approach",
    "instead",
    "should",
];
