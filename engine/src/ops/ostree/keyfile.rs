//! The key files that OSTree's configuration is written in. Comments are not kept.

use std::collections::HashMap;
use std::fmt;

/// Groups in their order, each with its keys and values in theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) groups: Vec<Group>,
}

/// One `[group]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) entries: Vec<(String, String)>,
}

impl KeyFile {
    /// Parses a text; gives the number of the line that is none of a key file.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut file = Self::default();
        // Where each group is: a file of strangers may have very many.
        let mut places = HashMap::new();
        let mut current = None;
        for (number, line) in (1_usize..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
            if let Some(name) = header {
                let groups = &mut file.groups;
                let place = places.entry(name).or_insert_with(|| push(groups, name));
                current = Some(*place);
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(number)?;
            let group = current.and_then(|at: usize| file.groups.get_mut(at));
            let entry = (key.trim_end().to_owned(), value.trim_start().to_owned());
            group.ok_or(number)?.entries.push(entry);
        }
        Ok(file)
    }

    /// The place of the group of a name, made if there is none.
    fn ensure(&mut self, name: &str) -> usize {
        let at = self.groups.iter().position(|group| group.name == name);
        at.unwrap_or_else(|| push(&mut self.groups, name))
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// A value; of a key that occurs twice the last one.
    pub(super) fn get(&self, group: &str, key: &str) -> Option<&str> {
        let entries = &self.group(group)?.entries;
        let found = entries.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a value.
    pub(super) fn set(&mut self, group: &str, key: &str, value: &str) {
        let at = self.ensure(group);
        let entries = &mut self.groups[at].entries;
        entries.retain(|(name, _)| name != key);
        entries.push((key.to_owned(), value.to_owned()));
    }

    /// Groups that describe remotes.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Group> {
        let is_remote = |group: &&Group| group.name.starts_with("remote \"");
        self.groups.iter().filter(is_remote)
    }
}

/// Appends a group; gives its place.
fn push(groups: &mut Vec<Group>, name: &str) -> usize {
    let name = name.to_owned();
    let entries = Vec::new();
    groups.push(Group { name, entries });
    groups.len() - 1
}

impl fmt::Display for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, group) in self.groups.iter().enumerate() {
            let gap = if n > 0 { "\n" } else { "" };
            writeln!(f, "{gap}[{}]", group.name)?;
            for (key, value) in &group.entries {
                writeln!(f, "{key}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ostree::MAX_CONFIG;

    #[test]
    fn what_is_written_is_read_back_and_comments_go() {
        let text =
            "# of ours\n[core]\nrepo_version = 1\nmode=bare\n\n[remote \"a\"]\nurl=http://x/?a=b\n";
        let file = KeyFile::parse(text).unwrap();
        assert_eq!(file.get("core", "repo_version"), Some("1"));
        assert_eq!(file.get("remote \"a\"", "url"), Some("http://x/?a=b"));
        assert_eq!(file.remotes().count(), 1);
        assert_eq!(KeyFile::parse(&file.to_string()), Ok(file));
    }

    #[test]
    fn lines_that_are_neither_group_nor_value_are_named() {
        for (text, line) in [("[core]\nnothing\n", 2), ("a=b\n", 1)] {
            assert_eq!(KeyFile::parse(text), Err(line), "{text}");
        }
    }

    #[test]
    fn a_value_is_replaced_and_a_group_is_made() {
        let mut file = KeyFile::default();
        file.set("core", "mode", "bare");
        file.set("core", "mode", "archive-z2");
        assert_eq!(file.to_string(), "[core]\nmode=archive-z2\n");
    }
    /// Were each group looked for among all before it, this would take minutes.
    #[test]
    fn as_many_groups_as_there_is_room_for_are_told_apart() {
        let count = MAX_CONFIG as usize / 8;
        let text: String = (0..count).map(|n| format!("[{n:05x}]\n")).collect();
        let again = format!("{text}[00007]\na=b\n");
        let file = KeyFile::parse(&again).unwrap();
        assert_eq!(file.groups.len(), count);
        assert_eq!(file.get("00007", "a"), Some("b"));
    }
}
