//! What goes first, and what stays.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(kind: Kind, name: u8) -> Key {
    Key {
        kind,
        digest: Digest::from_raw([name; 32]),
    }
}

fn unless(superseded: bool) -> Standing {
    if superseded {
        Standing::Superseded
    } else {
        Standing::Current
    }
}

fn names(keys: &[Key]) -> Vec<u8> {
    keys.iter().map(|key| key.digest.as_raw()[0]).collect()
}

#[test]
fn abandoned_fills_go_first_then_what_is_superseded_then_the_least_recently_used() {
    let mut index = Index::new(60, 1);
    for name in 1..=5 {
        index.insert(key(Kind::Pack, name), 10, true, 0);
    }
    index.insert(key(Kind::Partial, 6), 10, false, 0);
    let born = index.hold(key(Kind::Pack, 1)).unwrap().born;
    index.release(key(Kind::Pack, 1), born);
    index.rank(|key| unless(key.digest.as_raw()[0] == 4));
    let mut order = Vec::new();
    for name in 7..13 {
        order.push(names(&index.make_room(10).unwrap()));
        index.insert(key(Kind::Pack, name), 10, true, 1);
    }
    assert_eq!(order, [[6], [4], [2], [3], [5], [1]]);
    assert_eq!(index.make_room(10), Err(NoRoom));
    assert_eq!(index.bytes(), 60);
}

#[test]
fn what_one_device_asked_for_goes_before_what_many_did_and_pins_go_last() {
    let mut index = Index::new(60, 1);
    let [one, other] = ["laptop-1", "laptop-2"].map(Asker::device);
    for name in 1..=6 {
        index.insert(key(Kind::Pack, name), 10, true, 0);
    }
    let uses = [
        (2, one),
        (2, other),
        (3, one),
        (3, one),
        (4, Asker::NOBODY),
        (5, one),
    ];
    for (name, asker) in uses {
        index.use_by(Digest::from_raw([name; 32]), asker);
    }
    index.rank(|key| match key.digest.as_raw()[0] {
        1 => Standing::Pinned,
        6 => Standing::Older,
        _ => Standing::Current,
    });
    let order: Vec<Key> = index.in_order().map(|(_, slot)| slot.key()).collect();
    assert_eq!(names(&order), [6, 3, 5, 2, 4, 1]);
}

#[test]
fn what_nobody_waits_for_gives_up_nothing_that_is_pinned_or_worth_more() {
    let check = |errand, bytes, expected: Result<&[u8], NoRoom>| {
        let mut index = Index::new(50, 1);
        for name in 1..=5 {
            index.insert(key(Kind::Pack, name), 10, true, 0);
        }
        index.rank(|key| match key.digest.as_raw()[0] {
            1 | 2 => Standing::Pinned,
            3 => Standing::Superseded,
            4 => Standing::Older,
            _ => Standing::Current,
        });
        let room = index.make_room_for(errand, bytes, 0);
        assert_eq!(
            room.as_deref().map(names).map_err(|it| *it),
            expected.map(<[u8]>::to_vec)
        );
        assert_eq!(
            index.bytes() + room.map_or(0, |it| it.len() as u64 * 10),
            50
        );
    };
    check(Errand::Somebody, 50, Ok(&[3, 4, 5, 1, 2]));
    for standing in [Standing::Pinned, Standing::Current] {
        check(Errand::Nobody(standing), 30, Ok(&[3, 4, 5]));
        check(Errand::Nobody(standing), 31, Err(NoRoom));
    }
    check(Errand::Nobody(Standing::Older), 20, Ok(&[3, 4]));
    check(Errand::Nobody(Standing::Older), 21, Err(NoRoom));
    check(Errand::Nobody(Standing::Superseded), 11, Err(NoRoom));
}

#[test]
fn not_even_pins_beyond_their_share_go_for_what_nobody_waits_for() {
    let mut index = Index::new(100, 1);
    for name in 1..=10 {
        index.insert(key(Kind::Pack, name), 10, true, 0);
    }
    index.rank(|_| Standing::Pinned);
    let nobody = Errand::Nobody(Standing::Pinned);
    assert_eq!(index.make_room_for(nobody, 10, 0), Err(NoRoom));
    assert_eq!(names(&index.make_room(10).unwrap()), [1]);
}

#[test]
fn a_mark_is_of_the_file_that_was_checked_and_not_of_its_successor() {
    let mut index = Index::new(30, 1);
    let pack = key(Kind::Pack, 1);
    let first = index.insert(pack, 10, false, 0);
    let second = index.insert(pack, 10, false, 0);
    index.set_verified(pack, first);
    assert!(!index.is_verified(pack, second));
    index.set_verified(pack, second);
    assert!(index.is_verified(pack, second));
    index.doubt(pack);
    assert!(!index.is_verified(pack, second));
}

#[test]
fn a_fill_hands_its_askers_on_to_its_pack() {
    let mut index = Index::new(60, 1);
    let [one, other] = ["laptop-1", "laptop-2"].map(Asker::device);
    for (name, askers) in [(1, [one, one]), (2, [one, other])] {
        index.insert(key(Kind::Partial, name), 10, false, 1);
        for asker in askers {
            index.use_by(Digest::from_raw([name; 32]), asker);
        }
        index.insert(key(Kind::Pack, name), 10, true, 0);
        index.remove(key(Kind::Partial, name));
    }
    let ranks = [1, 2].map(|name| {
        index
            .slab
            .get(index.slab.find(key(Kind::Pack, name)).unwrap())
            .rank()
    });
    assert_eq!(ranks, [Rank::OneClient, Rank::Current]);
}

#[test]
fn pins_beyond_their_share_of_the_limit_count_for_nothing() {
    let mut index = Index::new(100, 1);
    for name in 1..=10 {
        index.insert(key(Kind::Pack, name), 10, true, 0);
    }
    index.use_by(Digest::from_raw([1; 32]), Asker::NOBODY);
    // Nine are pinned, which is two too many; 10 is younger than those and older than 1.
    index.rank(|key| match key.digest.as_raw()[0] {
        10 => Standing::Current,
        _ => Standing::Pinned,
    });
    let order: Vec<Key> = index.in_order().map(|(_, slot)| slot.key()).collect();
    assert_eq!(names(&order), [2, 3, 10, 4, 5, 6, 7, 8, 9, 1]);
}

#[test]
fn what_is_in_use_stays_and_nothing_goes_in_vain() {
    let mut index = Index::new(30, 1);
    for name in 1..=3 {
        index.insert(key(Kind::Pack, name), 10, true, 0);
    }
    let held = index.hold(key(Kind::Pack, 1)).unwrap();
    assert_eq!(index.make_room(25), Err(NoRoom));
    assert_eq!(index.files(Kind::Pack), 3);
    assert_eq!(names(&index.make_room(20).unwrap()), [2, 3]);
    index.release(key(Kind::Pack, 1), held.born);
    assert_eq!(names(&index.make_room(30).unwrap()), [1]);
}

#[test]
fn a_holder_of_a_file_that_has_gone_does_not_let_go_of_its_successor() {
    let mut index = Index::new(30, 1);
    let first = index.insert(key(Kind::Pack, 1), 10, true, 1);
    index.remove(key(Kind::Pack, 1));
    index.insert(key(Kind::Pack, 1), 10, true, 1);
    index.release(key(Kind::Pack, 1), first);
    assert!(!index.remove_born(key(Kind::Pack, 1), first));
    assert_eq!(index.make_room(30), Err(NoRoom));
}

proptest! {
    /// Whatever happens, the sum is that of the parts, within the limit once room was made.
    #[test]
    fn the_sum_is_exact(
        steps in proptest::collection::vec((0u8..5, 0u8..8, 1u64..40), 1..200)
    ) {
        let mut index = Index::new(100, 1);
        let mut model: BTreeMap<u8, u64> = BTreeMap::new();
        for (step, name, bytes) in steps {
            let pack = key(Kind::Pack, name);
            match step {
                0 | 1 => {
                    if let Ok(victims) = index.make_room(bytes) {
                        for victim in names(&victims) {
                            model.remove(&victim);
                        }
                        index.insert(pack, bytes, false, 0);
                        model.insert(name, bytes);
                    }
                }
                2 => {
                    index.remove(pack);
                    model.remove(&name);
                }
                3 => index.rank(|key| unless(key.digest.as_raw()[0] % 2 == 1)),
                _ => {
                    if let Some(found) = index.hold(pack) {
                        prop_assert_eq!(Some(&found.bytes), model.get(&name));
                        index.release(pack, found.born);
                    }
                }
            }
            prop_assert_eq!(index.bytes(), model.values().sum::<u64>());
            prop_assert!(index.excess() == 0);
            prop_assert_eq!(index.in_order().count(), model.len());
            prop_assert_eq!(index.files(Kind::Pack), model.len());
        }
    }
}

#[test]
fn what_was_asked_for_by_two_is_known_by_that_even_if_it_was_given_up_in_between() {
    let [one, other] = ["laptop-1", "laptop-2"].map(Asker::device);
    for (again, expected) in [(one, Rank::OneClient), (other, Rank::Current)] {
        let mut index = Index::new(10, 1);
        let pack = key(Kind::Pack, 1);
        index.insert(pack, 10, true, 0);
        index.use_by(pack.digest, one);
        assert_eq!(index.make_room(10), Ok(vec![pack]));
        index.insert(pack, 10, true, 0);
        index.use_by(pack.digest, again);
        let at = index.slab.find(pack).unwrap();
        assert_eq!(index.slab.get(at).rank(), expected);
    }
}

#[test]
fn files_count_for_the_blocks_that_they_take() {
    let mut index = Index::new(3 * 4096, 4096);
    index.insert(key(Kind::Object, 1), 1, true, 0);
    index.insert(key(Kind::Object, 2), 4096, true, 0);
    index.insert(key(Kind::Pack, 3), 0, true, 0);
    assert_eq!(index.bytes(), 2 * 4096);
    assert_eq!(names(&index.make_room(4097).unwrap()), [1]);
    assert_eq!(index.bytes(), 4096);
}

#[test]
fn a_hundred_thousand_files_are_found_and_forgotten_again() {
    let mut index = Index::new(u64::MAX, 1);
    let name = |number: u32| Key {
        kind: if number.is_multiple_of(5) {
            Kind::Object
        } else {
            Kind::Pack
        },
        digest: Digest::of(&number.to_le_bytes()),
    };
    for number in 0..100_000 {
        index.insert(name(number), 1, true, 0);
    }
    for number in (0..100_000).filter(|number| number % 3 != 0) {
        assert!(index.remove(name(number)));
    }
    for number in 0..100_000 {
        assert_eq!(index.contains(name(number)), number % 3 == 0);
    }
    for number in 100_000..166_666 {
        index.insert(name(number), 1, true, 0);
    }
    assert_eq!(index.bytes(), 100_000);
    assert_eq!(
        index.pieces(),
        100_000usize.div_ceil(SORTED_AT_ONCE),
        "free slots are used again"
    );
}
