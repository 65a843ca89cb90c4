//! Paths inside commits: looking one up, and walking what is below it in OSTree's order.

use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::object::Commit;
use crate::repo::Repository;
use crate::tree::check_depth;

/// Links that [`resolve_following`] follows before it takes them for a loop, as Linux does.
const MAX_LINKS: usize = 40;

/// What is at a path of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Dir {
        /// Listing.
        tree: ObjectId,
        /// Metadata.
        meta: ObjectId,
    },
    /// A regular file or symbolic link.
    File(ObjectId),
}

impl Node {
    /// The root directory of a commit.
    pub fn root(commit: &Commit) -> Self {
        Self::Dir {
            tree: commit.tree,
            meta: commit.meta,
        }
    }
}

/// One step of a [`walk`].
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Path from the root of the commit, beginning with `/`.
    pub path: &'a str,
    /// What is there.
    pub node: Node,
}

/// How far [`walk`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the starting point.
    Itself,
    /// The starting point and its children.
    Children,
    /// Everything below.
    All,
}

/// A path in the form that results use: one leading `/`, no empty and no `.` components, `..`
/// taken literally from the text (commits have no other way up).
pub fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Looks up a path below a directory; symbolic links are not followed.
pub fn resolve_path(repo: &Repository, root: Node, path: &str) -> Result<Node> {
    let not_found = || Error::PathNotFound {
        path: normalise(path),
    };
    let mut node = root;
    let path = normalise(path);
    let mut at = 0;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let Node::Dir { tree, .. } = node else {
            return Err(not_found());
        };
        let damaged = |e: Error| e.hitting(&path[..at], ObjectKind::Dirtree, &tree);
        let listing = repo.dirtree(&tree).map_err(damaged)?;
        at += 1 + name.len();
        node = match (listing.dir(name), listing.file(name)) {
            (Some(dir), _) => Node::Dir {
                tree: dir.tree,
                meta: dir.meta,
            },
            (None, Some(id)) => Node::File(*id),
            (None, None) => return Err(not_found()),
        };
    }
    Ok(node)
}

/// Looks up a path below the root of a commit, following symbolic links anywhere in it; absolute
/// targets begin at the root of the commit. Gives the path that was reached in the end.
pub fn resolve_following(repo: &Repository, root: Node, path: &str) -> Result<(String, Node)> {
    let not_found = || Error::PathNotFound {
        path: normalise(path),
    };
    let mut todo: Vec<String> = components_reversed(path);
    let mut done: Vec<(String, Node)> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let here = done.last().map_or(root, |(_, node)| *node);
        let node = resolve_path(repo, here, &name).map_err(|e| match e {
            Error::PathNotFound { .. } => not_found(),
            // Of the directory that the name was looked up in.
            Error::Damaged {
                kind, id, source, ..
            } => {
                let above: Vec<&str> = done.iter().map(|(name, _)| name.as_str()).collect();
                source.hitting(&format!("/{}", above.join("/")), kind, &id)
            }
            other => other,
        })?;
        let Node::File(id) = node else {
            done.push((name, node));
            continue;
        };
        let file = repo.file(&id);
        let file = file.map_err(|e| e.hitting(&normalise(path), ObjectKind::File, &id))?;
        if !file.header.is_symlink() {
            done.push((name, node));
            continue;
        }
        links += 1;
        let target = std::str::from_utf8(&file.header.symlink_target).map_err(|_| not_found())?;
        if links > MAX_LINKS {
            return Err(Error::UnsupportedInput {
                path: normalise(path),
                reason: "too many levels of symbolic links".into(),
            });
        }
        if target.starts_with('/') {
            done.clear();
        }
        todo.extend(components_reversed(target));
    }
    let names: Vec<&str> = done.iter().map(|(name, _)| name.as_str()).collect();
    let node = done.last().map_or(root, |(_, node)| *node);
    Ok((format!("/{}", names.join("/")), node))
}

fn components_reversed(path: &str) -> Vec<String> {
    path.rsplit('/')
        .filter(|part| !matches!(*part, "" | "."))
        .map(str::to_owned)
        .collect()
}

/// Visits a starting point and what is below it: a directory before its contents, its files
/// before its subdirectories, both in byte order of their names, as `ostree ls` prints them.
///
/// `path` is the path of the starting point; the walk ends at the first error of `visit`.
pub fn walk<E: From<Error>>(
    repo: &Repository,
    path: &str,
    start: Node,
    depth: Depth,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = normalise(path);
    visit(Entry {
        path: &buffer,
        node: start,
    })?;
    if buffer == "/" {
        buffer.clear();
    }
    match (depth, start) {
        (Depth::Itself, _) | (_, Node::File(_)) => Ok(()),
        (_, Node::Dir { tree, .. }) => {
            let level = (depth == Depth::All).then_some(1);
            walk_below(repo, &mut buffer, tree, level, visit)
        }
    }
}

/// `level` counts the directories gone into, `None` to go into none.
fn walk_below<E: From<Error>>(
    repo: &Repository,
    path: &mut String,
    tree: ObjectId,
    level: Option<usize>,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let listing = repo.dirtree(&tree);
    let listing = listing.map_err(|e| e.hitting(path, ObjectKind::Dirtree, &tree))?;
    let length = path.len();
    for (name, id) in &listing.files {
        path.push('/');
        path.push_str(name);
        visit(Entry {
            path,
            node: Node::File(*id),
        })?;
        path.truncate(length);
    }
    for dir in &listing.dirs {
        path.push('/');
        path.push_str(&dir.name);
        visit(Entry {
            path,
            node: Node::Dir {
                tree: dir.tree,
                meta: dir.meta,
            },
        })?;
        if let Some(level) = level {
            check_depth(path, level)?;
            walk_below(repo, path, dir.tree, Some(level + 1), visit)?;
        }
        path.truncate(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_brought_into_one_form() {
        for (given, normal) in [
            ("", "/"),
            ("/", "/"),
            ("a//b/", "/a/b"),
            ("./a/./b", "/a/b"),
            ("/a/../../b", "/b"),
        ] {
            assert_eq!(normalise(given), normal, "{given:?}");
        }
    }
}
