//! What the parties say to each other.

use content::{Digest, PackId};
use protocol::{
    BoosterAddresses, ByteRange, CheckIn, CheckInAnswer, Code, EnrolRole, FAULT_BYTES_MAX, Fault,
    Hello, Join, Route, Token,
};

/// A check-in or its answer: what was taken can be sent on and is taken again.
pub fn check_in(data: &[u8]) {
    if let Some(check_in) = CheckIn::decode(data) {
        assert_eq!(
            CheckIn::decode(&check_in.encode()).as_ref(),
            Some(&check_in)
        );
        assert!(check_in.release.len() <= 64);
        for list in check_in
            .booster
            .iter()
            .flat_map(|at| [&at.content, &at.enrol])
        {
            assert!(list.len() <= 8);
            list.iter().for_each(|address| is_address(address));
        }
    }
    if let Some(answer) = CheckInAnswer::decode(data) {
        assert_eq!(CheckInAnswer::decode(&answer.encode()), Some(answer));
    }
}

/// `HOST:PORT`, as a connector will take it.
fn is_address(address: &str) {
    let (host, port) = address.rsplit_once(':').expect("it has a port");
    assert!(!host.is_empty());
    assert!(
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()),
        "{address}"
    );
    assert!(port.parse::<u16>().is_ok(), "{address}");
}

/// Those of a client and of a booster, and an answer.
#[must_use]
pub fn check_in_seeds() -> Vec<Vec<u8>> {
    let from = |booster| CheckIn {
        release: "0.1.0".to_owned(),
        booster,
        held: None,
    };
    let booster = BoosterAddresses {
        content: vec!["10.0.0.1:8543".to_owned(), "[::1]:1".to_owned()],
        enrol: vec!["booster.example:8544".to_owned()],
    };
    let answer = CheckInAnswer::in_seconds(60);
    vec![
        from(None).encode(),
        from(Some(booster)).encode(),
        answer.encode(),
    ]
}

/// A fault: within its bound, and the same when sent on.
pub fn fault(data: &[u8]) {
    let Some(fault) = Fault::decode(data) else {
        return;
    };
    assert!(data.len() <= FAULT_BYTES_MAX);
    let body = fault.encode();
    if body.len() <= FAULT_BYTES_MAX {
        assert_eq!(Fault::decode(&body), Some(fault));
    }
}

/// One fault of each code.
#[must_use]
pub fn fault_seeds() -> Vec<Vec<u8>> {
    Code::ALL
        .map(|code| Fault::new(code, "why").encode())
        .into()
}

/// A hello.
pub fn hello(data: &[u8]) {
    if let Some(hello) = Hello::decode(data) {
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
    }
}

/// One hello.
#[must_use]
pub fn hello_seeds() -> Vec<Vec<u8>> {
    let hello = Hello {
        deployment: "d1".to_owned(),
        role: "origin".to_owned(),
        id: "o1".to_owned(),
        protocol_min: 1,
        protocol_max: 1,
        time: 1_700_000_000,
    };
    vec![hello.encode()]
}

/// A join string: it has one form, and what it shows to a log is not the token.
pub fn join(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(join) = text.parse::<Join>() else {
        return;
    };
    assert_eq!(join.reveal(), text.trim(), "a join string has one form");
    assert!((1..=8).contains(&join.addresses.len()));
    join.addresses
        .iter()
        .for_each(|address| is_address(address));
    if let Some(token) = &join.token {
        assert_eq!(Token::parse(&token.reveal()).as_ref(), Some(token));
        assert!(!format!("{token:?}").contains(&token.reveal()));
    }
}

/// With a token and without, for one address and for two.
#[must_use]
pub fn join_seeds() -> Vec<Vec<u8>> {
    let join = |token, addresses: &[&str]| Join {
        pin: [7; 32],
        token,
        addresses: addresses
            .iter()
            .map(|&address| address.to_owned())
            .collect(),
    };
    [
        join(None, &["10.0.0.1:8444"]),
        join(
            Some(Token::new([9; 16])),
            &["larder.example:8444", "[::1]:2"],
        ),
    ]
    .map(|join| join.reveal().into_bytes())
    .into()
}

/// A range against a body of some length: within it, and not empty.
pub fn range(data: &[u8]) {
    let Some((length, field)) = data.split_first_chunk::<8>() else {
        return;
    };
    let length = u64::from_be_bytes(*length);
    let Ok(field) = std::str::from_utf8(field) else {
        return;
    };
    let Ok(ByteRange::Part(part)) = ByteRange::parse(Some(field), length) else {
        return;
    };
    assert!(
        part.start < part.end && part.end <= length,
        "{part:?} of {length}"
    );
    let plain = format!("bytes={}-{}", part.start, part.end - 1);
    assert_eq!(
        ByteRange::parse(Some(&plain), length),
        Ok(ByteRange::Part(part))
    );
}

/// Ranges of each form.
#[must_use]
pub fn range_seeds() -> Vec<Vec<u8>> {
    let seed = |length: u64, field: &str| [&length.to_be_bytes()[..], field.as_bytes()].concat();
    vec![
        seed(100, "bytes=10-19"),
        seed(100, "bytes=10-"),
        seed(100, "bytes=-5"),
        seed(0, "bytes=0-0,5-9"),
        seed(u64::MAX, "bytes=0-18446744073709551615"),
    ]
}

/// A path: its route leads back to the same route, and to the same path but for EST's aliases.
pub fn route(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(route) = Route::parse(path) else {
        return;
    };
    let again = route.to_string();
    assert_eq!(Route::parse(&again).as_ref(), Ok(&route));
    if path.starts_with("/v1/") {
        assert_eq!(again, path, "a route has one path");
    }
}

/// One path of each kind.
#[must_use]
pub fn route_seeds() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"x");
    let tools = "tools".parse().expect("a plain name");
    [
        Route::CaCerts,
        Route::Crls,
        Route::CheckIn,
        Route::Crl([7; 32]),
        Route::Deployment,
        Route::Enrol(EnrolRole::Booster),
        Route::Hello,
        Route::Inventory,
        Route::Log,
        Route::Pack(tools, PackId(digest)),
        Route::Reenrol(EnrolRole::Client),
        Route::Snapshot(digest),
        Route::Statement(digest),
        Route::Timestamp,
        Route::Wait,
    ]
    .map(|route| route.to_string().into_bytes())
    .into()
}
