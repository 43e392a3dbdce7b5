//! Versions in order: as Debian orders them (Debian Policy §5.6.12), which puts numbers, dates and
//! rpm's versions with epoch and release in order as well.

use std::cmp::Ordering;

/// How `a` stands to `b`: by epoch (what stands before the first `:`), then by version, then by
/// release (what follows the last `-`). Runs of digits count as numbers; `~` comes before the end,
/// letters before other characters.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    let ((epoch_a, a), (epoch_b, b)) = (epoch(a), epoch(b));
    let ((version_a, release_a), (version_b, release_b)) = (release(a), release(b));
    part(epoch_a, epoch_b)
        .then_with(|| part(version_a, version_b))
        .then_with(|| part(release_a, release_b))
}

fn epoch(text: &str) -> (&[u8], &str) {
    match text.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
            (epoch.as_bytes(), rest)
        }
        Some(_) | None => (b"", text),
    }
}

fn release(text: &str) -> (&[u8], &[u8]) {
    let (version, release) = text.rsplit_once('-').unwrap_or((text, ""));
    (version.as_bytes(), release.as_bytes())
}

fn part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (words_a, rest_a) = run(a, |byte| !byte.is_ascii_digit());
        let (words_b, rest_b) = run(b, |byte| !byte.is_ascii_digit());
        let (number_a, rest_a) = run(rest_a, |byte| byte.is_ascii_digit());
        let (number_b, rest_b) = run(rest_b, |byte| byte.is_ascii_digit());
        let order = words(words_a, words_b).then_with(|| number(number_a, number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn run(bytes: &[u8], fits: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !fits(*byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

fn words(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let all = 0..a.len().max(b.len());
    let mut orders = all.map(|at| rank(a.get(at)).cmp(&rank(b.get(at))));
    orders
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Of any length.
fn number(a: &[u8], b: &[u8]) -> Ordering {
    let (_, a) = run(a, |byte| byte == b'0');
    let (_, b) = run(b, |byte| byte == b'0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
