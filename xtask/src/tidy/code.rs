//! Rust source as tidy sees it: code without comments and literals, comments without code, and
//! which lines are tests. A lexer of thirty rules, not a parser: formatted code is taken for granted.

/// One file, line by line.
pub struct Code {
    /// Lines with comments and the insides of string and character literals blanked.
    pub code: Vec<String>,
    /// Lines with everything but comments blanked.
    pub comments: Vec<String>,
    /// Whether the line belongs to an item under `#[cfg(test)]`.
    pub test: Vec<bool>,
}

/// A path that is written in the code, `use` trees expanded.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// 1-based.
    pub line: usize,
    /// Segments joined by `::`.
    pub path: String,
}

impl Code {
    /// Splits a source file.
    pub fn parse(text: &str) -> Code {
        let (code, comments) = split(text);
        let code: Vec<String> = code.lines().map(str::to_owned).collect();
        let comments = comments.lines().map(str::to_owned).collect();
        let test = test_lines(&code);
        Code {
            code,
            comments,
            test,
        }
    }

    /// Lines that are shipped: not under `#[cfg(test)]`.
    pub fn production_lines(&self) -> usize {
        self.test.iter().filter(|test| !**test).count()
    }

    /// The code of each line that is not a test, with its 1-based number.
    pub fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.test).enumerate();
        lines
            .filter(|(_, (_, test))| !**test)
            .map(|(i, (line, _))| (i + 1, line.as_str()))
    }

    /// Every path of two or more segments, and every path of a `use`, outside tests.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        let mut tree: Option<(usize, String)> = None;
        for (number, line) in self.production() {
            if let Some((_, text)) = &mut tree {
                text.push_str(line.trim());
            } else if let Some(rest) = use_statement(line) {
                tree = Some((number, rest.to_owned()));
            } else {
                paths.extend(inline_paths(line).map(|path| Path { line: number, path }));
            }
            if let Some((start, text)) = tree.take_if(|(_, text)| text.contains(';')) {
                let mut expanded = Vec::new();
                expand(
                    "",
                    text.split(';').next().unwrap_or_default(),
                    &mut expanded,
                );
                paths.extend(expanded.into_iter().map(|path| Path { line: start, path }));
            }
        }
        paths
    }
}

/// What follows `use ` when the line begins such a statement.
fn use_statement(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => line,
    };
    line.trim_start().strip_prefix("use ")
}

/// `a::{b, c::d}` becomes `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
        let prefix = format!("{prefix}{}", head.trim());
        for part in split_commas(inner) {
            expand(&prefix, part, into);
        }
    } else if !tree.is_empty() {
        let name = tree.split(" as ").next().unwrap_or(tree).trim();
        into.push(format!("{prefix}{name}"));
    }
}

/// Splits at the commas that stand in no braces.
fn split_commas(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

fn inline_paths(line: &str) -> impl Iterator<Item = String> {
    let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|word| word.contains("::"))
        .map(|word| word.trim_matches(':').to_owned())
}

/// Marks the lines of each item that follows a `#[cfg(test)]` or a `#[test]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut i = 0;
    while i < code.len() {
        if code[i].trim_start().starts_with("#[cfg(test)]") {
            let end = item_end(code, i);
            test[i..=end].fill(true);
            i = end;
        }
        i += 1;
    }
    test
}

/// The last line of the item whose attribute stands on line `start`.
fn item_end(code: &[String], start: usize) -> usize {
    let mut depth = 0_usize;
    for (i, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return i,
                '}' => depth -= 1,
                ';' if depth == 0 => return i,
                _ => {}
            }
        }
    }
    code.len() - 1
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// Nested this deep.
    BlockComment(usize),
    String,
    /// Closed by a quote and this many `#`.
    RawString(usize),
}

/// The text twice, of the same shape: with only its code, and with only its comments.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut state = State::Code;
    let mut i = 0;
    while i < chars.len() {
        let (taken, next, to_code) = step(&chars[i..], i.checked_sub(1).map(|p| chars[p]), state);
        for &c in &chars[i..i + taken] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            let comment = matches!(state, State::LineComment | State::BlockComment(_));
            code.push(if to_code { c } else { blank });
            comments.push(if comment { c } else { blank });
        }
        state = next;
        i += taken;
    }
    (code, comments)
}

/// Takes one token: its length, the state after it, and whether it is code.
fn step(rest: &[char], before: Option<char>, state: State) -> (usize, State, bool) {
    let two = (rest[0], rest.get(1).copied().unwrap_or('\0'));
    match state {
        State::Code => step_code(rest, before, two),
        State::LineComment if rest[0] == '\n' => (1, State::Code, true),
        State::LineComment => (1, state, false),
        State::BlockComment(depth) => match two {
            ('/', '*') => (2, State::BlockComment(depth + 1), false),
            ('*', '/') if depth == 1 => (2, State::Code, false),
            ('*', '/') => (2, State::BlockComment(depth - 1), false),
            _ => (1, state, false),
        },
        State::String => match two {
            ('\\', _) => (rest.len().min(2), state, false),
            ('"', _) => (1, State::Code, true),
            _ => (1, state, false),
        },
        State::RawString(hashes) => {
            let closed =
                rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes;
            if closed {
                (1 + hashes, State::Code, true)
            } else {
                (1, state, false)
            }
        }
    }
}

fn step_code(rest: &[char], before: Option<char>, two: (char, char)) -> (usize, State, bool) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_') && before != Some('b');
    match two {
        ('/', '/') => (1, State::LineComment, false),
        ('/', '*') => (2, State::BlockComment(1), false),
        ('"', _) => (1, State::String, true),
        ('r', '"' | '#') if !in_word => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            match rest.get(1 + hashes) {
                Some('"') => (2 + hashes, State::RawString(hashes), true),
                _ => (1, State::Code, true), // A raw identifier.
            }
        }
        ('\'', '\\') => {
            let close = rest[2..]
                .iter()
                .skip(1)
                .position(|c| *c == '\'')
                .map_or(rest.len(), |p| p + 4);
            (close.min(rest.len()), State::Code, false)
        }
        ('\'', _) if rest.get(2) == Some(&'\'') => (3, State::Code, false),
        _ => (1, State::Code, true),
    }
}
