//! Where a package's files go in the tree.
//!
//! Owns the path rules of rpm-ostree's importer: configuration below `usr/etc`, nothing below
//! `var` or `run` but as tmpfiles.d(5) lines, and only `usr` and its aliases at the top. Paths are
//! relative, as [`Entry`] has them. Never touches content.

use std::collections::BTreeSet;

use crate::package::{Entry, EntryKind};

/// Which rules place a package's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum PathRules {
    /// The package's own paths.
    #[default]
    AsPackaged,
    /// rpm-ostree's layout.
    RpmOstree,
}

/// Where one entry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// To this path.
    At(String),
    /// Nowhere: a tmpfiles.d line makes it when the system boots.
    Tmpfiles,
    /// Nowhere.
    Dropped,
}

/// Places the entries of one package and collects its tmpfiles.d lines.
#[derive(Debug)]
pub struct Layout<'p> {
    rules: PathRules,
    package: &'p str,
    lines: BTreeSet<String>,
}

/// Packages whose unsupported paths are passed over: they bring the skeleton of a classic root.
const SKELETONS: [&str; 2] = ["filesystem", "rootfiles"];
/// Directories of `var/lib` that live in `usr/lib`, with a link at the old place.
const MOVED: [&str; 2] = ["alternatives", "vagrant"];

impl<'p> Layout<'p> {
    /// For the package of this name.
    pub fn new(rules: PathRules, package: &'p str) -> Self {
        Self {
            rules,
            package,
            lines: BTreeSet::new(),
        }
    }

    /// Places an entry; the error says why it has no place.
    pub fn place(&mut self, entry: &Entry) -> Result<Placement, &'static str> {
        match self.rules {
            PathRules::AsPackaged => Ok(Placement::At(entry.path.clone())),
            PathRules::RpmOstree => self.place_rpm_ostree(entry),
        }
    }

    /// A directory's mode under these rules: rpm-ostree's are writable by their owner.
    pub fn dir_mode(&self, mode: u32) -> u32 {
        match self.rules {
            PathRules::AsPackaged => mode,
            PathRules::RpmOstree => mode | 0o200,
        }
    }

    /// The path and text of the package's tmpfiles.d file, if it needs one.
    pub fn tmpfiles(self) -> Option<(String, String)> {
        if self.lines.is_empty() {
            return None;
        }
        let path = format!("usr/lib/rpm-ostree/tmpfiles.d/{}.conf", self.package);
        Some((
            path,
            self.lines.iter().map(|line| format!("{line}\n")).collect(),
        ))
    }

    fn place_rpm_ostree(&mut self, entry: &Entry) -> Result<Placement, &'static str> {
        let path = entry.path.as_str();
        if let Some(moved) = self.translate(path) {
            let lock = moved.starts_with("usr/etc/selinux/") && moved.ends_with(".LOCK");
            return Ok(if lock {
                Placement::Dropped
            } else {
                Placement::At(moved)
            });
        }
        if below(path, "var").is_some() || below(path, "run").is_some() {
            return Ok(self.tmpfiles_entry(entry));
        }
        let allowed = ["usr", "bin", "sbin", "lib", "lib64"];
        if path.is_empty() || allowed.iter().any(|top| below(path, top).is_some()) {
            return Ok(Placement::At(path.to_owned()));
        }
        if SKELETONS.contains(&self.package) {
            return Ok(Placement::Dropped);
        }
        Err("unsupported path: only /usr, /etc, /opt, /boot, /var and /run have a place")
    }

    /// The new path of what lives elsewhere in rpm-ostree's layout.
    fn translate(&mut self, path: &str) -> Option<String> {
        if let Some(rest) = below(path, "etc") {
            return Some(format!("usr/etc{rest}"));
        }
        if let Some(rest) = below(path, "boot") {
            return Some(format!("usr/lib/ostree-boot{rest}"));
        }
        if let Some(rest) = below(path, "opt") {
            if let Some(name) = rest.split('/').nth(1) {
                let name = escape(name);
                self.lines
                    .insert(format!("L /opt/{name} - - - - ../../usr/lib/opt/{name}"));
            }
            return Some(format!("usr/lib/opt{rest}"));
        }
        if let Some(rest) = below(path, "var/lib/selinux/targeted") {
            return Some(format!("usr/etc/selinux/targeted{rest}"));
        }
        let (name, rest) = MOVED
            .iter()
            .find_map(|name| Some((name, below(path.strip_prefix("var/lib/")?, name)?)))?;
        self.lines
            .insert(format!("L /var/lib/{name} - - - - ../../usr/lib/{name}"));
        Some(format!("usr/lib/{name}{rest}"))
    }

    fn tmpfiles_entry(&mut self, entry: &Entry) -> Placement {
        let path = entry.path.as_str();
        let own = ["var", "run", "var/run", "var/lib"].contains(&path);
        let kept = ["var/lib/rpm", "var/lib/selinux"]
            .iter()
            .any(|p| below(path, p).is_some());
        if own || kept {
            return Placement::Dropped;
        }
        let at = match below(path, "var/run") {
            Some(rest) => format!("/run{}", escape(rest)),
            None => format!("/{}", escape(path)),
        };
        let line = match entry.kind {
            EntryKind::Dir => {
                let mode = entry.mode & 0o7777;
                format!("d {at} {mode:04o} {} {} - -", entry.user, entry.group)
            }
            EntryKind::Symlink => format!("L {at} - - - - {}", escape(&entry.target)),
            EntryKind::File | EntryKind::Special | EntryKind::Unnameable => {
                return Placement::Dropped;
            }
        };
        self.lines.insert(line);
        Placement::Tmpfiles
    }
}

/// What follows a directory's name in a path: empty, or beginning with `/`.
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    path.strip_prefix(dir)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Escapes what tmpfiles.d(5) would split at or expand.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => out.push_str("%%"),
            '\\' | '"' | '\'' => out.extend(['\\', c]),
            c if c.is_ascii_whitespace() || c.is_ascii_control() => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rpm::FileFlags;

    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.to_owned(),
            kind,
            mode: if kind == EntryKind::Dir {
                0o040750
            } else {
                0o100644
            },
            user: "root".into(),
            group: "mail".into(),
            caps: None,
            size: 0,
            target: if kind == EntryKind::Symlink {
                "../x y".to_owned()
            } else {
                String::new()
            },
            flags: FileFlags::empty(),
            digest: None,
            inode: None,
            position: 0,
        }
    }

    #[test]
    fn rpm_ostrees_rules_move_drop_or_refuse() {
        use EntryKind::{Dir, File, Symlink};
        let at = |path: &str| Ok(Placement::At(path.to_owned()));
        let refused = || Err("");
        for (path, kind, expected) in [
            ("", Dir, at("")),
            ("usr/bin/x", File, at("usr/bin/x")),
            ("bin/x", File, at("bin/x")),
            ("lib64", Symlink, at("lib64")),
            ("etc", Dir, at("usr/etc")),
            ("etc/x/y", File, at("usr/etc/x/y")),
            ("etcetera", File, refused()),
            ("boot/vmlinuz", File, at("usr/lib/ostree-boot/vmlinuz")),
            ("opt", Dir, at("usr/lib/opt")),
            ("opt/a/b", File, at("usr/lib/opt/a/b")),
            ("var/lib/alternatives", Dir, at("usr/lib/alternatives")),
            ("var/lib/vagrant/x", File, at("usr/lib/vagrant/x")),
            (
                "var/lib/selinux/targeted/a",
                File,
                at("usr/etc/selinux/targeted/a"),
            ),
            ("etc/selinux/x.LOCK", File, Ok(Placement::Dropped)),
            ("var", Dir, Ok(Placement::Dropped)),
            ("var/lib/rpm/x", File, Ok(Placement::Dropped)),
            ("var/lib/x/file", File, Ok(Placement::Dropped)),
            ("var/lib/x", Dir, Ok(Placement::Tmpfiles)),
            ("run/x", Symlink, Ok(Placement::Tmpfiles)),
            ("srv/x", File, refused()),
        ] {
            let found = Layout::new(PathRules::RpmOstree, "p").place(&entry(path, kind));
            assert_eq!(found.map_err(|_| ""), expected, "{path}");
        }
        let mut skeleton = Layout::new(PathRules::RpmOstree, "filesystem");
        assert_eq!(skeleton.place(&entry("srv", Dir)), Ok(Placement::Dropped));
        let mut own = Layout::new(PathRules::AsPackaged, "p");
        assert_eq!(own.place(&entry("srv/x", File)), at("srv/x"));
        assert_eq!(own.tmpfiles(), None);
    }

    #[test]
    fn what_is_not_stored_becomes_tmpfiles_lines() {
        let mut layout = Layout::new(PathRules::RpmOstree, "pkg");
        for (path, kind) in [
            ("var/run/pkg", EntryKind::Dir),
            ("var/spool/a b", EntryKind::Symlink),
            ("opt/vendor/x", EntryKind::File),
            ("opt/vendor", EntryKind::Dir),
            ("var/lib/alternatives", EntryKind::Dir),
        ] {
            layout.place(&entry(path, kind)).unwrap();
        }
        let (path, text) = layout.tmpfiles().unwrap();
        assert_eq!(path, "usr/lib/rpm-ostree/tmpfiles.d/pkg.conf");
        assert_eq!(
            text,
            "L /opt/vendor - - - - ../../usr/lib/opt/vendor\n\
             L /var/lib/alternatives - - - - ../../usr/lib/alternatives\n\
             L /var/spool/a\\x20b - - - - ../x\\x20y\n\
             d /run/pkg 0750 root mail - -\n"
        );
    }
}
