//! Statements come back, hold their form, and are refused by the name of the check.

use expect_test::{Expect, expect};

use super::*;
use crate::name::RevisionNumber;

/// A judge for whom the right signature is the message's digest.
struct Toy;

impl Judge for Toy {
    fn deployment(&self) -> &'static str {
        "d1"
    }

    fn judge(&self, message: &[u8], sig: &[u8], _: &[Vec<u8>], at: i64) -> Result<(), JudgeError> {
        if at < 1000 {
            return Err(JudgeError {
                source: "the certificate was not yet valid".into(),
            });
        }
        if sig == Digest::of(message).as_raw() {
            Ok(())
        } else {
            Err(JudgeError {
                source: "bad signature".into(),
            })
        }
    }
}

fn sealed<T: Payload>(payload: &T) -> Vec<u8> {
    let sign = |message: &[u8]| {
        Ok::<_, std::convert::Infallible>(Signature {
            signature: Digest::of(message).as_raw().to_vec(),
            chain: vec![b"leaf".to_vec()],
            key_id: "k".to_owned(),
        })
    };
    seal(payload, sign).unwrap()
}

fn revision() -> Revision {
    Revision {
        deployment: "d1".to_owned(),
        fileset: "tools".parse().unwrap(),
        number: RevisionNumber(3),
        root: Digest::of(b"root"),
        root_bytes: 100,
        size: 1 << 30,
        entries: 12,
        created: 1_700_000_000,
    }
}

fn timestamp() -> Timestamp {
    Timestamp {
        deployment: "d1".to_owned(),
        epoch: 1,
        version: 9,
        issued: 1_700_000_000,
        expires: 1_700_086_400,
        snapshot: Digest::of(b"snapshot"),
        deployment_document: Digest::of(b"document"),
        crl_minimums: vec![IssuerMinimum {
            issuer: [7; 32],
            number: 4,
        }],
    }
}

fn snapshot() -> Snapshot {
    let revision = |number| RevisionEntry {
        number: RevisionNumber(number),
        statement: Digest::of(b"s"),
        locator: Digest::of(b"l"),
    };
    Snapshot {
        deployment: "d1".to_owned(),
        created: 1_700_000_000,
        filesets: vec![FilesetEntry {
            name: "tools".parse().unwrap(),
            current: RevisionNumber(3),
            retained: vec![revision(2), revision(3)],
        }],
    }
}

fn document() -> Deployment {
    Deployment {
        deployment: "d1".to_owned(),
        version: 2,
        created: 1_700_000_000,
        roots: vec![b"root".to_vec()],
        origin: OriginEntry {
            id: "origin".to_owned(),
            addresses: vec!["127.0.0.1:8443".to_owned()],
            enrol_addresses: vec!["127.0.0.1:8444".to_owned()],
        },
        boosters: vec![BoosterEntry {
            id: "b1".to_owned(),
            addresses: vec!["127.0.0.1:9443".to_owned()],
            enrol_addresses: vec![],
            site: "north".to_owned(),
        }],
        protocol_min: 1,
        protocol_max: 1,
    }
}

fn manifest() -> Manifest {
    let item = |name: &str, depends: &[&str]| Item {
        fileset: name.parse().unwrap(),
        revision: RevisionNumber(3),
        statement: Digest::of(b"s"),
        target: "/opt/tools".to_owned(),
        mode: InstallMode::Merge,
        times: Times {
            activate_from: Some(1_700_000_000),
            delete_at: Some(1_800_000_000),
            ..Times::default()
        },
        heal: vec![HealRule {
            pattern: "etc/**".parse().unwrap(),
            mode: HealMode::IfMissing,
        }],
        depends: depends.iter().map(|name| name.parse().unwrap()).collect(),
        scripts: vec![Script {
            stage: Stage::Preflight,
            name: "stop the service".to_owned(),
            digest: Digest::of(b"#!/bin/sh"),
            bytes: 9,
            seconds: 60,
        }],
    };
    Manifest {
        deployment: "d1".to_owned(),
        device: "c1".to_owned(),
        number: 7,
        model: 2,
        created: 1_700_000_000,
        items: vec![item("libs", &[]), item("tools", &["libs"])],
    }
}

fn roster_head() -> RosterHead {
    RosterHead {
        deployment: "d1".to_owned(),
        booster: "b1".to_owned(),
        model: 2,
        count: 3,
        root: Digest::of(b"root"),
        list: Digest::of(b"list"),
        every: 120,
        issued: 1_700_000_000,
        expires: 1_700_086_400,
    }
}

fn spoken() -> Spoken {
    Spoken {
        deployment: "d1".to_owned(),
        device: "c1".to_owned(),
        run: [7; 16],
        counter: 9,
        at: 1_700_000_000,
        body: b"{}".to_vec(),
    }
}

fn comes_back<T: Payload + PartialEq + fmt::Debug>(payload: &T, expected: Expect) {
    let bytes = payload.encode();
    assert_eq!(T::decode(&bytes).as_ref(), Ok(payload));
    expected.assert_eq(&format!("{} bytes, {:?}", bytes.len(), Digest::of(&bytes)));
    for end in 0..bytes.len() {
        assert!(
            T::decode(&bytes[..end]).is_err(),
            "the first {end} bytes were taken"
        );
    }
    assert!(
        T::decode(&[&bytes[..], &[0]].concat()).is_err(),
        "a trailing byte was taken"
    );
}

/// The bytes are a promise to every booster and client in the field.
#[test]
fn the_bytes_of_payloads_do_not_drift() {
    comes_back(&revision(), expect!["67 bytes, sha256:41db84292078…"]);
    comes_back(&timestamp(), expect!["130 bytes, sha256:d46b2bae3f73…"]);
    comes_back(&snapshot(), expect!["166 bytes, sha256:a90225168912…"]);
    comes_back(&document(), expect!["94 bytes, sha256:afbe34559e68…"]);
    comes_back(&manifest(), expect!["295 bytes, sha256:f8742d319826…"]);
    comes_back(&roster_head(), expect!["100 bytes, sha256:43a35880a376…"]);
    comes_back(&spoken(), expect!["39 bytes, sha256:42826f21b6f3…"]);
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let check = |edit: &dyn Fn(&mut Manifest), expected: Expect| {
        let mut bad = manifest();
        edit(&mut bad);
        expected.assert_eq(&Manifest::decode(&bad.encode()).unwrap_err().to_string());
    };
    check(
        &|it| it.items.reverse(),
        expect!["value of key 5 is out of bounds: filesets out of order"],
    );
    check(
        &|it| it.items[0].target = "/opt/../etc".to_owned(),
        expect!["value of key 5 is out of bounds: a target that is no absolute, normal path"],
    );
    check(
        &|it| it.items[0].target = "/".to_owned(),
        expect!["value of key 5 is out of bounds: a target that is no absolute, normal path"],
    );
    check(
        &|it| it.items[0].times.download_from = Some(1_900_000_000),
        expect!["value of key 5 is out of bounds: times that do not rise"],
    );
    check(
        &|it| it.items[1].depends.push("libs".parse().unwrap()),
        expect!["value of key 5 is out of bounds: filesets out of order"],
    );
    check(
        &|it| it.items[0].scripts[0].seconds = 0,
        expect!["value of key 5 is out of bounds: a script"],
    );
    check(
        &|it| {
            let mut early = it.items[0].scripts[0].clone();
            early.stage = Stage::Requirement;
            it.items[0].scripts.push(early);
        },
        expect!["value of key 5 is out of bounds: stages out of order"],
    );
}

/// What operators write and what the format holds are the same things.
#[test]
fn words_and_codes_come_back() {
    for mode in InstallMode::ALL {
        assert_eq!(InstallMode::from_code(mode.code()), Some(*mode));
        assert_eq!(InstallMode::from_word(mode.word()), Some(*mode));
    }
    for mode in HealMode::ALL {
        assert_eq!(HealMode::from_code(mode.code()), Some(*mode));
        assert_eq!(HealMode::from_word(mode.word()), Some(*mode));
    }
    for stage in Stage::ALL {
        assert_eq!(Stage::from_code(stage.code()), Some(*stage));
        assert_eq!(Stage::from_word(stage.word()), Some(*stage));
    }
}

fn check<T: Payload + fmt::Debug>(envelope: &[u8], expected: Expect) {
    let text = match Statement::<T>::open(envelope, &Toy, 2000) {
        Ok(_) => "taken".to_owned(),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    };
    expected.assert_eq(&text);
}

#[test]
fn a_statement_is_refused_by_the_name_of_the_check() {
    let good = sealed(&revision());
    check::<Revision>(&good, expect!["taken"]);
    check::<Timestamp>(
        &good,
        expect![[
            r#"statement check failed (application/vnd.larder.timestamp+cbor): cannot read the envelope: it holds "application/vnd.larder.revision+cbor""#
        ]],
    );
    let edited = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replace(from, to);
    check::<Revision>(
        edited("revision+", "timestamp+").as_bytes(),
        expect![[
            r#"statement check failed (application/vnd.larder.revision+cbor): cannot read the envelope: it holds "application/vnd.larder.timestamp+cbor""#
        ]],
    );
    check::<Revision>(
        edited("\"sig\":\"", "\"sig\":\"AAAA").as_bytes(),
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): the signature does not count: cannot trust its signer: bad signature"
        ],
    );
    check::<Revision>(
        edited("[\"bGVhZg==\"]", "[]").as_bytes(),
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): cannot read the envelope: it holds 0 certificates, want 1 to 3"
        ],
    );
    check::<Revision>(
        &good[..good.len() - 2],
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): cannot read the envelope: it is not the JSON of an envelope: EOF while parsing a list at line 1 column 260"
        ],
    );
    check::<Revision>(
        &[],
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): cannot read the envelope: it is not the JSON of an envelope: EOF while parsing a value at line 1 column 0"
        ],
    );
    check::<Revision>(
        &vec![b' '; Revision::ENVELOPE_BYTES_MAX + 1],
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): cannot read the envelope: it is longer than 71000 bytes"
        ],
    );
    check::<Revision>(
        &sealed(&Revision {
            deployment: "d2".to_owned(),
            ..revision()
        }),
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): it belongs to another deployment"
        ],
    );
    check::<Revision>(
        &sealed(&Revision {
            created: 999,
            ..revision()
        }),
        expect![
            "statement check failed (application/vnd.larder.revision+cbor): the signature does not count: cannot trust its signer: the certificate was not yet valid"
        ],
    );
}

#[test]
fn only_the_statement_asked_for_is_taken() {
    let envelope = sealed(&revision());
    let name = Digest::of(&envelope);
    assert!(Statement::<Revision>::open_named(&envelope, name, &Toy, 0).is_ok());
    let other = Statement::<Revision>::open_named(&envelope, Digest::of(b""), &Toy, 0);
    assert!(matches!(other.unwrap_err().fault(), Fault::Digest { .. }));
}
