//! A parsed TOML file whose tables and values know their line and the path of their key.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Characters of a guessed key that an error shows.
const KEY_SHOWN: usize = 80;

/// The text of one file.
pub(super) struct Document<'a> {
    file: &'a str,
    text: &'a str,
}

impl<'a> Document<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Document { file, text }
    }

    /// The top-level table, or the first syntax error.
    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let message = error.message().trim().replace('\n', "; ");
            self.error_near(offset, &format!("invalid TOML: {message}"))
        })
    }

    /// The table that the whole file is.
    pub fn root<'t>(&'t self, entries: &'t DeTable<'t>) -> Table<'t> {
        Table { document: self, path: String::new(), line: 1, entries }
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, line: usize, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            problem: problem.into(),
        }
    }

    /// An error at a place that no parsed key covers; the key is guessed from the text around it.
    pub fn error_near(&self, offset: usize, problem: &str) -> ConfigError {
        let line = self.line_of(offset);
        self.error(line, &self.key_near(line), problem)
    }

    /// Path of the key that line `line` seems to set: the headers above it, and what is left of `=`.
    fn key_near(&self, line: usize) -> String {
        let mut section = String::new();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut key = None;
        for line in self.text.lines().take(line) {
            let line = line.trim();
            key = None;
            if let Some((name, _)) = line.strip_prefix("[[").and_then(|l| l.split_once("]]")) {
                let count = seen.entry(name).or_default();
                section = format!("{}[{count}]", name.trim());
                *count += 1;
            } else if let Some(rest) = line.strip_prefix('[') {
                section = rest.split(']').next().unwrap_or(rest).trim().to_owned();
            } else {
                key = line.split_once('=').map(|(key, _)| key.trim());
            }
        }
        let path = match key {
            Some(key) => join(&section, key),
            None => section,
        };
        match path.is_empty() {
            true => "top level".to_owned(),
            false => shortened(&path).escape_debug().to_string(),
        }
    }
}

/// What was guessed of a file that is none of ours need not be shown in full.
fn shortened(path: &str) -> String {
    match path.char_indices().nth(KEY_SHOWN) {
        Some((end, _)) => format!("{}...", &path[..end]),
        None => path.to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    match path.is_empty() {
        true => key,
        false => format!("{path}.{key}"),
    }
}

/// ` (allowed: a, b)`, preceded by the one that `found` looks like a misspelling of.
pub(super) fn suggest<'k>(found: &str, allowed: impl IntoIterator<Item = &'k str>) -> String {
    let allowed: Vec<&str> = allowed.into_iter().collect();
    if allowed.is_empty() {
        return " (there is none)".to_owned();
    }
    let close = allowed
        .iter()
        .map(|name| (strsim::damerau_levenshtein(found, name), name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len().min(found.len()))
        .min();
    let hint = close.map_or(String::new(), |(_, name)| format!("; did you mean {name:?}?"));
    format!("{hint} (allowed: {})", allowed.join(", "))
}

/// A TOML table.
pub(super) struct Table<'t> {
    document: &'t Document<'t>,
    path: String,
    line: usize,
    entries: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    /// Refuses keys that are not in `known`.
    pub fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let unknown = self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        // The map is sorted by key; whoever reads the error wants the first one in the file.
        match unknown.min_by_key(|key| key.span().start) {
            None => Ok(()),
            Some(key) => {
                let hint = suggest(key.get_ref(), known.iter().copied());
                let line = self.document.line_of(key.span().start);
                let path = join(&self.path, key.get_ref());
                Err(self.document.error(line, &path, format!("unknown key{hint}")))
            }
        }
    }

    pub fn get(&self, key: &str) -> Option<Value<'t>> {
        self.entries.get(key).map(|value| Value {
            document: self.document,
            path: join(&self.path, key),
            line: self.document.line_of(value.span().start),
            value: value.get_ref(),
        })
    }

    pub fn require(&self, key: &str, what: &str) -> Result<Value<'t>, ConfigError> {
        self.get(key).ok_or_else(|| self.missing_key(key, what))
    }

    /// The error for a key of this table that is not there.
    pub fn missing_key(&self, key: &str, what: &str) -> ConfigError {
        self.missing(&join(&self.path, key), what)
    }

    /// The error for a key that is not there; `path` counts from the top.
    pub fn missing(&self, path: &str, what: &str) -> ConfigError {
        self.document.error(self.line, path, format!("missing ({what})"))
    }

    /// The table under `key`, such as `[api]`.
    pub fn section(&self, key: &str) -> Result<Option<Table<'t>>, ConfigError> {
        self.get(key).map(|value| value.table(&format!("a section, [{key}]"))).transpose()
    }

    /// The tables under `key`, such as every `[[guest]]`; none when it is absent.
    pub fn sections(&self, key: &str) -> Result<Vec<Table<'t>>, ConfigError> {
        let wanted = format!("a repeatable section, [[{key}]]");
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(value) => value.elements(&wanted)?.iter().map(|v| v.table(&wanted)).collect(),
        }
    }
}

/// A TOML value.
pub(super) struct Value<'t> {
    document: &'t Document<'t>,
    path: String,
    line: usize,
    value: &'t DeValue<'t>,
}

impl<'t> Value<'t> {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn line(&self) -> usize {
        self.line
    }

    pub fn error(&self, problem: impl Into<String>) -> ConfigError {
        self.document.error(self.line, &self.path, problem)
    }

    fn expected(&self, wanted: &str) -> ConfigError {
        let found = match self.value {
            DeValue::String(text) => format!("the string {:?}", text.as_ref()),
            DeValue::Integer(number) => format!("the integer {number}"),
            DeValue::Boolean(truth) => format!("{truth}"),
            other => format!("a TOML {}", other.type_str()),
        };
        self.error(format!("expected {wanted}, found {found}"))
    }

    /// A string that can be handed to the kernel and to DPDK: not empty, no NUL, no control characters.
    pub fn string(&self, wanted: &str) -> Result<&'t str, ConfigError> {
        match self.value.as_str() {
            None => Err(self.expected(wanted)),
            Some("") => Err(self.error(format!("is empty (expected {wanted})"))),
            Some(text) if text.contains(char::is_control) => {
                Err(self.error(format!("has a control character (expected {wanted})")))
            }
            Some(text) => Ok(text),
        }
    }

    pub fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub fn integer(&self, range: RangeInclusive<u16>) -> Result<u16, ConfigError> {
        self.value
            .as_integer()
            .and_then(|number| u16::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                self.expected(&format!("an integer from {low} to {high}"))
            })
    }

    /// The elements of an array.
    pub fn elements(&self, wanted: &str) -> Result<Vec<Value<'t>>, ConfigError> {
        let array = self.value.as_array().ok_or_else(|| self.expected(wanted))?;
        let element = |(index, value): (usize, &'t Spanned<DeValue<'t>>)| Value {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            line: self.document.line_of(value.span().start),
            value: value.get_ref(),
        };
        Ok(array.iter().enumerate().map(element).collect())
    }

    /// The keys of a table, each with its value.
    pub fn entries(&self, wanted: &str) -> Result<Vec<(&'t str, Value<'t>)>, ConfigError> {
        let table = self.table(wanted)?;
        let keys = table.entries.keys().map(|key| key.get_ref().as_ref());
        Ok(keys.filter_map(|key| Some((key, table.get(key)?))).collect())
    }

    fn table(&self, wanted: &str) -> Result<Table<'t>, ConfigError> {
        let entries = self.value.as_table().ok_or_else(|| self.expected(wanted))?;
        Ok(Table { document: self.document, path: self.path.clone(), line: self.line, entries })
    }

    /// One of a few words, each with its meaning.
    pub fn word<T: Copy>(&self, allowed: &[(&str, T)]) -> Result<T, ConfigError> {
        let names = || allowed.iter().map(|(name, _)| format!("{name:?}"));
        let list = names().collect::<Vec<_>>().join(", ");
        let found = self.value.as_str().ok_or_else(|| self.expected(&list))?;
        match allowed.iter().find(|(name, _)| *name == found) {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let hint = suggest(found, allowed.iter().map(|(name, _)| *name));
                Err(self.error(format!("unknown value {found:?}{hint}")))
            }
        }
    }
}
