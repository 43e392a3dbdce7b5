//! As much DER as it takes to put a certificate or a revocation list together anew.

use anyhow::{Context as _, ensure};

pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const INTEGER: u8 = 0x02;
/// Context-specific, constructed, 0.
pub(crate) const CONTEXT_0: u8 = 0xa0;

/// The first element of `bytes`, as it stands there and its contents alone, and what follows.
pub(crate) fn first(bytes: &[u8]) -> anyhow::Result<(&[u8], &[u8], &[u8])> {
    let head = *bytes.get(1).context("an element has a length")?;
    let (length, start) = if head < 0x80 {
        (usize::from(head), 2)
    } else {
        let digits = usize::from(head & 0x7f);
        ensure!((1..=4).contains(&digits), "a length of {digits} bytes");
        let digits = bytes.get(2..2 + digits).context("the length is cut off")?;
        let length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (length, 2 + digits.len())
    };
    let whole = bytes
        .get(..start + length)
        .context("an element is cut off")?;
    Ok((whole, &whole[start..], &bytes[start + length..]))
}

/// The elements inside the first element of `bytes`, each as it stands there.
pub(crate) fn inside(bytes: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let (_, mut rest, _) = first(bytes)?;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (whole, _, after) = first(rest)?;
        elements.push(whole);
        rest = after;
    }
    Ok(elements)
}

/// The contents of the first element of `bytes`.
pub(crate) fn contents(bytes: &[u8]) -> anyhow::Result<&[u8]> {
    Ok(first(bytes)?.1)
}

/// An element.
pub(crate) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = contents.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|digit| **digit == 0).count()..];
    match digits {
        [] => bytes.push(0),
        [one] if *one < 0x80 => bytes.push(*one),
        digits => {
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend(digits);
        }
    }
    bytes.extend(contents);
    bytes
}

/// The parts of something signed: what the signature is over, the algorithm, and the signature as a
/// BIT STRING holds it: first the number of bits that do not count.
pub(crate) fn signed(bytes: &[u8]) -> anyhow::Result<(&[u8], &[u8], &[u8])> {
    let parts = inside(bytes)?;
    let [body, algorithm, signature] = parts[..] else {
        anyhow::bail!("want three parts, got {}", parts.len())
    };
    Ok((body, algorithm, contents(signature)?))
}
