//! File capabilities: from the text in a package to the bytes of `security.capability`.
//!
//! The text is the one of cap_from_text(3); the bytes are the kernel's `struct vfs_cap_data`,
//! revision 2, as `setcap` writes them.

/// Names of the kernel's capabilities; the position is the number.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const ALL: u64 = (1 << NAMES.len()) - 1;
const REVISION_2: u32 = 0x0200_0000;
const EFFECTIVE: u32 = 1;

/// Text that does not describe file capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("file capabilities {text:?}: {reason}")]
pub struct CapsError {
    text: String,
    reason: &'static str,
}

/// The value of `security.capability` for a text such as `cap_net_raw,cap_kill=ep`.
pub fn to_xattr(text: &str) -> Result<[u8; 20], CapsError> {
    let fail = |reason| CapsError {
        text: text.to_owned(),
        reason,
    };
    let mut sets = Sets::default();
    for clause in text.split_ascii_whitespace() {
        sets.apply(clause).map_err(fail)?;
    }
    let granted = sets.permitted | sets.inheritable;
    if sets.effective != 0 && granted & !sets.effective != 0 {
        return Err(fail(
            "a file's capabilities are effective either all or not at all",
        ));
    }
    let flag = if sets.effective != 0 { EFFECTIVE } else { 0 };
    let words = [
        REVISION_2 | flag,
        sets.permitted as u32,
        sets.inheritable as u32,
        (sets.permitted >> 32) as u32,
        (sets.inheritable >> 32) as u32,
    ];
    let mut bytes = [0; 20];
    for (out, word) in bytes.chunks_exact_mut(4).zip(words) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

#[derive(Debug, Default)]
struct Sets {
    effective: u64,
    inheritable: u64,
    permitted: u64,
}

impl Sets {
    /// One clause: names, then one or more of an operator with flags.
    fn apply(&mut self, clause: &str) -> Result<(), &'static str> {
        let operator = |c: char| matches!(c, '=' | '+' | '-');
        let at = clause
            .find(operator)
            .ok_or("a clause without \"=\", \"+\" or \"-\"")?;
        let (names, mut rest) = clause.split_at(at);
        let caps = match names {
            "" if rest.starts_with('=') => ALL,
            "" => return Err("an operator without capabilities"),
            _ => names
                .split(',')
                .try_fold(0, |caps, name| number(name).map(|cap| caps | cap))?,
        };
        while let Some(op) = rest.chars().next() {
            rest = rest.get(1..).unwrap_or_default();
            let (flags, next) = rest.split_at(rest.find(operator).unwrap_or(rest.len()));
            if op == '=' {
                self.change(caps, "eip", false)?;
            }
            self.change(caps, flags, op != '-')?;
            rest = next;
        }
        Ok(())
    }

    fn change(&mut self, caps: u64, flags: &str, raise: bool) -> Result<(), &'static str> {
        for flag in flags.chars() {
            let set = match flag {
                'e' => &mut self.effective,
                'i' => &mut self.inheritable,
                'p' => &mut self.permitted,
                _ => return Err("a flag that is not e, i or p"),
            };
            *set = if raise { *set | caps } else { *set & !caps };
        }
        Ok(())
    }
}

/// The bit of a capability; `all` is every one.
fn number(name: &str) -> Result<u64, &'static str> {
    let name = name.to_ascii_lowercase();
    if name == "all" {
        return Ok(ALL);
    }
    let known = name
        .strip_prefix("cap_")
        .and_then(|n| NAMES.iter().position(|known| *known == n));
    let number = known.or_else(|| name.parse().ok().filter(|n| *n < NAMES.len()));
    number.map(|n| 1 << n).ok_or("an unknown capability")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_setcap_writes() {
        let net_raw = 1 << 13;
        for (text, flag, permitted, inheritable) in [
            ("cap_net_raw+ep", 1, net_raw, 0),
            ("cap_net_raw+p", 0, net_raw, 0),
            ("cap_net_raw=eip", 1, net_raw, net_raw),
            ("cap_net_raw,cap_sys_admin=ep", 1, net_raw | 1 << 21, 0),
            ("=ep", 1, ALL, 0),
            ("all+ep", 1, ALL, 0),
            ("=", 0, 0, 0),
            ("= cap_net_raw+ep", 1, net_raw, 0),
            ("all=p cap_kill-p", 0, ALL & !(1 << 5), 0),
            ("40=ep", 1, 1 << 40, 0),
            ("cap_net_raw+p+e", 1, net_raw, 0),
            ("CAP_NET_RAW=p", 0, net_raw, 0),
        ] {
            let bytes = to_xattr(text).unwrap();
            let word = |at: usize| {
                u64::from(u32::from_le_bytes(
                    bytes[at * 4..at * 4 + 4].try_into().unwrap(),
                ))
            };
            assert_eq!(word(0), 0x0200_0000 | flag, "{text}");
            assert_eq!(word(1) | word(3) << 32, permitted, "{text}");
            assert_eq!(word(2) | word(4) << 32, inheritable, "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for text in [
            "cap_net_raw",
            "cap_no_such=ep",
            "cap_net_raw=x",
            "+ep",
            "41=ep",
            ",=p",
            "cap_net_raw=p cap_net_admin=ei",
        ] {
            assert!(to_xattr(text).is_err(), "{text}");
        }
    }
}
