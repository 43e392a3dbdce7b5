//! Patterns: `*` stands for any text, `?` for one character.

/// Whether `text` fits `pattern`. In the worst case it looks at each character of the one for each
/// of the other, and both are bounded.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut in_text) = (0, 0);
    // Where the last `*` is, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, in_text));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            Some(_) | None => match &mut star {
                Some((back, until)) => {
                    *until += 1;
                    (at, in_text) = (*back + 1, *until);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}
