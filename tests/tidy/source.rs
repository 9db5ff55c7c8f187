//! Source files as the rules see them: without comments, text literals and tests.

use std::fs;
use std::io;
use std::path::Path;

/// One Rust file.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root of the repository, `src/mqtt/head.rs`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments and the insides of literals are blanks; lines stay where they are.
    pub code: String,
    /// The same, tests blanked as well; all blank for a file of tests.
    pub product: String,
}

/// All files, in order of their paths.
#[derive(Debug)]
pub struct Tree(pub Vec<Source>);

impl Tree {
    /// From (path, text) pairs.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut sources: Vec<Source> = files
            .into_iter()
            .map(|(path, text)| {
                let code = blank_literals(&text);
                let (product, _) = blank_tests(&code);
                Source { path, text, code, product }
            })
            .collect();
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let test_modules: Vec<String> = sources.iter().flat_map(test_modules).collect();
        for source in &mut sources {
            let is_test = |module: &String| {
                let stem = source.path.trim_end_matches(".rs");
                stem == module || stem.starts_with(&format!("{module}/"))
            };
            if !source.path.contains("src/") || test_modules.iter().any(is_test) {
                source.product = blank(&source.code);
            }
        }
        Self(sources)
    }

    /// Every Rust file under these folders of the repository.
    pub fn read(root: &Path, folders: &[&str]) -> io::Result<Self> {
        let mut files = Vec::new();
        for folder in folders {
            read_folder(root, &root.join(folder), &mut files)?;
        }
        Ok(Self::new(files))
    }
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                read_folder(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The files (without `.rs`) that `#[cfg(test)] mod name;` in `source` names.
fn test_modules(source: &Source) -> Vec<String> {
    let (_, items) = blank_tests(&source.code);
    let stem = source.path.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        _ => stem,
    };
    items
        .iter()
        .filter_map(|item| {
            let declared = item.trim().strip_suffix(';')?;
            let (_, name) = declared.rsplit_once("mod ")?;
            Some(format!("{folder}/{}", name.trim()))
        })
        .collect()
}

fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Blanks every item behind `#[cfg(test)]`; also returns those items.
fn blank_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut product = String::with_capacity(code.len());
    let mut items = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        let (item, after) = item.split_at(item_end(item));
        product.push_str(before);
        product.push_str(&blank(item));
        items.push(item[MARK.len()..].to_owned());
        rest = after;
    }
    product.push_str(rest);
    (product, items)
}

/// Where the item at the beginning of `code` ends: at its `;` or at the brace that closes its first one.
fn item_end(code: &str) -> usize {
    let mut braces = 0_usize;
    let mut brackets = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            ';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks comments and the insides of string and character literals.
pub fn blank_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(c) = rest.chars().next() {
        let taken = if in_word && c != '"' { None } else { literal_or_comment(rest) };
        let length = taken.unwrap_or(c.len_utf8());
        let (piece, after) = rest.split_at(length);
        if taken.is_some() {
            code.push_str(&blank(piece));
        } else {
            code.push_str(piece);
        }
        in_word = taken.is_none() && (c.is_alphanumeric() || c == '_');
        rest = after;
    }
    code
}

/// The length of the comment or literal at the beginning of `text`, if there is one.
fn literal_or_comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if prefix <= 1 {
        if let Some(raw) = unprefixed.strip_prefix('r') {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            if raw[hashes..].starts_with('"') {
                let close = format!("\"{}", "#".repeat(hashes));
                let open = prefix + 1 + hashes + 1;
                return Some(text[open..].find(&close).map_or(text.len(), |end| open + end + close.len()));
            }
        }
        if unprefixed.starts_with('"') {
            return Some(prefix + quoted(unprefixed, '"'));
        }
    }
    if text.starts_with('\'') || text.starts_with("b'") {
        let prefix = usize::from(text.starts_with('b'));
        return character(&text[prefix..]).map(|length| prefix + length);
    }
    None
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a literal with escapes that begins with `quote`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; `None` for a lifetime or label.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted(text, '\'')),
        (c, '\'') => Some(c.len_utf8() + 2),
        _ => None,
    }
}
