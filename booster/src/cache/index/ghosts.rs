//! Who asked for what has been given up: so that what comes back is known to be wanted again.

use content::Digest;

use super::Asker;

/// As many of the packs given up last as there are files, roughly: a newer one takes the place of
/// an older one whose name falls into the same place. 8 bytes a place.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    places: Vec<Ghost>,
}

/// Part of a pack's name, by which it is told from others with enough certainty for what hangs on
/// it; and who asked for it.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    name: u32,
    asker: Asker,
}

impl Ghosts {
    /// Remembers who asked for a pack that is given up, one of `files`.
    pub(super) fn put(&mut self, digest: &Digest, asker: Asker, files: usize) {
        let wanted = files.next_power_of_two().max(PLACES_MIN);
        if self.places.len() < wanted {
            let before = std::mem::take(&mut self.places);
            self.places = vec![Ghost::NONE; wanted];
            drop(before);
        }
        let (place, name) = self.place(digest);
        self.places[place] = Ghost { name, asker };
    }

    /// Who asked for a pack when it was last here, as far as that is remembered. Forgets it.
    pub(super) fn take(&mut self, digest: &Digest) -> Asker {
        if self.places.is_empty() {
            return Asker::NOBODY;
        }
        let (place, name) = self.place(digest);
        if self.places[place].name != name {
            return Asker::NOBODY;
        }
        std::mem::replace(&mut self.places[place], Ghost::NONE).asker
    }

    fn place(&self, digest: &Digest) -> (usize, u32) {
        let [.., a, b, c, d, e, f, g, h] = *digest.as_raw();
        let place = u32::from_le_bytes([a, b, c, d]) as usize & (self.places.len() - 1);
        (place, u32::from_le_bytes([e, f, g, h]))
    }
}

impl Ghost {
    const NONE: Self = Self {
        name: 0,
        asker: Asker::NOBODY,
    };
}

/// Places that there are at least; a power of two, as all sizes are.
const PLACES_MIN: usize = 1024;
