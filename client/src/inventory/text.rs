//! Text of strangers, made short and of one line.

use protocol::Inventory;

/// `text` without control characters, as long as a text of an inventory may be.
pub(super) fn short(text: &str) -> String {
    let mut found = String::new();
    for letter in text.trim().chars().filter(|letter| !letter.is_control()) {
        if found.len() + letter.len_utf8() > Inventory::TEXT_BYTES_MAX {
            break;
        }
        found.push(letter);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_short_and_of_one_line() {
        assert_eq!(short("  a\u{1b}[2J\nb "), "a[2Jb");
        assert_eq!(short(&"ü".repeat(200)), "ü".repeat(128));
    }
}
