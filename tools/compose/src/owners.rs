//! From the owners' names in packages to the numbers in commits.
//!
//! Owns the order of sources: numeric names, `root`, then passwd and group texts that the caller
//! gives (of the tree being made), then a table of the static ids of Fedora's `setup` package,
//! filled up with those names that only Debian has. What none of them knows is an error or root,
//! by policy.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// What to do with an owner that no source knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownOwner {
    /// Refuse the package.
    #[default]
    Refuse,
    /// Give the file to root, and drop its set-user-id or set-group-id bit and capabilities,
    /// which were meant for somebody else.
    Root,
}

/// Maps owners' names to ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
    /// The policy for names that no source knows.
    pub unknown: UnknownOwner,
}

impl Owners {
    /// Adds the users of a passwd(5) text; names known before keep their ids. Lines that are not
    /// of that form are passed over.
    pub fn add_passwd(&mut self, text: &str) {
        add(&mut self.users, text);
    }

    /// Adds the groups of a group(5) text, likewise.
    pub fn add_group(&mut self, text: &str) {
        add(&mut self.groups, text);
    }

    /// The id of a user, if any source knows it.
    pub fn user(&self, name: &str) -> Option<u32> {
        find(&self.users, name, |(_, user, _)| *user)
    }

    /// The id of a group, if any source knows it.
    pub fn group(&self, name: &str) -> Option<u32> {
        find(&self.groups, name, |(_, _, group)| *group)
    }

    /// Stands for the whole mapping in keys of imports.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for (tag, map) in [(b'u', &self.users), (b'g', &self.groups)] {
            for (name, id) in map {
                hasher.update([tag]);
                hasher.update(name.as_bytes());
                hasher.update([0]);
                hasher.update(id.to_le_bytes());
            }
        }
        hasher.update([u8::from(self.unknown == UnknownOwner::Root)]);
        hasher.finalize().into()
    }
}

fn add(map: &mut BTreeMap<String, u32>, text: &str) {
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next(), fields.next(), fields.next());
        if let (Some(name), Some(Ok(id))) = (name, id.map(str::parse))
            && !name.is_empty()
        {
            map.entry(name.to_owned()).or_insert(id);
        }
    }
}

type Static = (&'static str, Option<u32>, Option<u32>);

fn find(
    map: &BTreeMap<String, u32>,
    name: &str,
    column: impl Fn(&Static) -> Option<u32>,
) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    if name == "root" {
        return Some(0);
    }
    let known = map.get(name).copied();
    known.or_else(|| STATIC.iter().filter(|(n, ..)| *n == name).find_map(column))
}

/// Name, user id, group id.
const STATIC: &[Static] = &[
    ("bin", Some(1), Some(1)),
    ("daemon", Some(2), Some(2)),
    ("sys", None, Some(3)),
    ("adm", Some(3), Some(4)),
    ("tty", None, Some(5)),
    ("disk", None, Some(6)),
    ("lp", Some(4), Some(7)),
    ("mem", None, Some(8)),
    ("kmem", None, Some(9)),
    ("wheel", None, Some(10)),
    ("cdrom", None, Some(11)),
    ("sync", Some(5), None),
    ("shutdown", Some(6), None),
    ("halt", Some(7), None),
    ("mail", Some(8), Some(12)),
    ("news", Some(9), Some(13)),
    ("uucp", Some(10), Some(14)),
    ("operator", Some(11), None),
    ("games", Some(12), Some(20)),
    ("man", None, Some(15)),
    ("oprofile", Some(16), Some(16)),
    ("pkiuser", Some(17), Some(17)),
    ("dialout", None, Some(18)),
    ("floppy", None, Some(19)),
    ("slocate", None, Some(21)),
    ("utmp", None, Some(22)),
    ("squid", Some(23), Some(23)),
    ("pvm", Some(24), Some(24)),
    ("named", Some(25), Some(25)),
    ("postgres", Some(26), Some(26)),
    ("mysql", Some(27), Some(27)),
    ("nscd", Some(28), Some(28)),
    ("rpcuser", Some(29), Some(29)),
    ("rpc", Some(32), Some(32)),
    ("amandabackup", Some(33), None),
    ("tape", None, Some(33)),
    ("utempter", Some(35), Some(35)),
    ("kvm", Some(36), Some(36)),
    ("rpm", Some(37), Some(37)),
    ("ntp", Some(38), Some(38)),
    ("video", None, Some(39)),
    ("dip", None, Some(40)),
    ("mailman", Some(41), Some(41)),
    ("gdm", Some(42), Some(42)),
    ("mailnull", Some(47), Some(47)),
    ("apache", Some(48), Some(48)),
    ("ftp", Some(14), Some(50)),
    ("smmsp", Some(51), Some(51)),
    ("puppet", Some(52), Some(52)),
    ("lock", None, Some(54)),
    ("ldap", Some(55), Some(55)),
    ("tss", Some(59), Some(59)),
    ("audio", None, Some(63)),
    ("webalizer", Some(67), Some(67)),
    ("avahi", Some(70), Some(70)),
    ("tcpdump", Some(72), Some(72)),
    ("sshd", Some(74), Some(74)),
    ("radvd", Some(75), Some(75)),
    ("cyrus", Some(76), None),
    ("saslauth", None, Some(76)),
    ("arpwatch", Some(77), Some(77)),
    ("dbus", Some(81), Some(81)),
    ("screen", None, Some(84)),
    ("postfix", Some(89), Some(89)),
    ("postdrop", None, Some(90)),
    ("tomcat", Some(91), Some(91)),
    ("frr", Some(92), Some(92)),
    ("exim", Some(93), Some(93)),
    ("radiusd", Some(95), Some(95)),
    ("dovecot", Some(97), Some(97)),
    ("users", None, Some(100)),
    ("input", None, Some(104)),
    ("render", None, Some(105)),
    ("sgx", None, Some(106)),
    ("qemu", Some(107), Some(107)),
    ("rtkit", Some(172), Some(172)),
    ("abrt", Some(173), Some(173)),
    ("dhcpd", Some(177), Some(177)),
    ("systemd-journal", None, Some(190)),
    ("systemd-network", Some(192), Some(192)),
    ("systemd-resolve", Some(193), Some(193)),
    ("nobody", Some(65534), Some(65534)),
    // Only in Debian's base-passwd.
    ("man", Some(6), None),
    ("proxy", Some(13), Some(13)),
    ("fax", None, Some(21)),
    ("voice", None, Some(22)),
    ("sudo", None, Some(27)),
    ("www-data", Some(33), Some(33)),
    ("backup", Some(34), Some(34)),
    ("list", Some(38), Some(38)),
    ("irc", Some(39), Some(39)),
    ("src", None, Some(40)),
    ("_apt", Some(42), None),
    ("shadow", None, Some(42)),
    ("sasl", None, Some(45)),
    ("plugdev", None, Some(46)),
    ("staff", None, Some(50)),
    ("nogroup", None, Some(65534)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_stated_order() {
        let mut owners = Owners::default();
        owners.add_passwd("root:x:7:7::/:/bin/sh\nmail:x:1234:1:a:b:c\nnew:x:77:1\nbroken\nx:y:z");
        owners.add_passwd("new:x:78:1");
        owners.add_group("mail:x:99:\n:x:5:");
        let user = |name| owners.user(name);
        assert_eq!(
            (user("root"), user("0"), user("4711")),
            (Some(0), Some(0), Some(4711))
        );
        assert_eq!((user("mail"), owners.group("mail")), (Some(1234), Some(99)));
        assert_eq!((user("new"), owners.group("new")), (Some(77), None));
        assert_eq!(
            (user("bin"), owners.group("lp"), user("shadow")),
            (Some(1), Some(7), None)
        );
        assert_eq!((user("man"), owners.group("man")), (Some(6), Some(15)));
        assert_eq!((user(""), user("x"), user("no such")), (None, None, None));
    }

    #[test]
    fn the_fingerprint_follows_every_change() {
        let base = Owners::default();
        let mut user = base.clone();
        user.add_passwd("a:x:1");
        let mut group = base.clone();
        group.add_group("a:x:1");
        let root = Owners {
            unknown: UnknownOwner::Root,
            ..base.clone()
        };
        let mut prints = [base, user, group, root]
            .map(|owners| owners.fingerprint())
            .to_vec();
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), 4);
    }
}
