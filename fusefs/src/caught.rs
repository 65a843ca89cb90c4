//! Panics that must not end the thread they happen in.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs something; of a panic it gives what that said. What was being worked on must be usable, or
/// nobody's, after a panic.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("unknown reason").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_words() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 7;
        let told = [
            caught::<()>(|| panic!("a bug")),
            caught::<()>(|| panic!("bug {number}")),
            caught::<()>(|| std::panic::panic_any(number)),
        ];
        let words = ["a bug", "bug 7", "unknown reason"];
        assert_eq!(told, words.map(|words| Err(words.to_owned())));
    }
}
