//! docs/openapi.yaml says what the code does: a route, a method or a code that one of them has and
//! the other has not is found here. What listeners answer is asked in tests/interop.

use std::collections::BTreeSet;

use protocol::{Code, Route};
use tests::openapi::{Page, routes};

#[test]
fn every_route_of_the_code_is_described_and_no_other() {
    let page = Page::read().unwrap();
    let known: BTreeSet<&str> = routes().iter().map(Route::kind).collect();
    let described: BTreeSet<&str> = page.operations.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(described, known);
    for operation in &page.operations {
        let route = Route::parse(&operation.sample()).unwrap();
        assert_eq!(route.kind(), operation.kind, "{}", operation.path);
        let first = route.methods().split(',').next().unwrap();
        assert_eq!(operation.method.to_uppercase(), first, "{}", operation.path);
        assert!(!operation.tags.is_empty(), "{}", operation.path);
        assert!(operation.statuses.len() > 1, "{}", operation.path);
    }
}

#[test]
fn every_path_to_a_route_is_described() {
    let page = Page::read().unwrap();
    for route in routes() {
        let path = route.to_string();
        let mut described = page.of_kind(route.kind());
        assert!(described.any(|it| it.sample() == path), "{path}");
    }
    // Those of EST come with and without a label.
    for kind in ["cacerts", "crls", "enrol", "reenrol"] {
        assert_eq!(page.of_kind(kind).count(), 2, "{kind}");
    }
}

#[test]
fn every_code_of_a_fault_is_described_with_its_status() {
    let page = Page::read().unwrap();
    let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let described: BTreeSet<&str> = page.codes.iter().map(String::as_str).collect();
    assert_eq!(described, names);
    for code in Code::ALL {
        let found = page.faults.get(code.name()).map_or(&[][..], Vec::as_slice);
        if code == Code::MethodNotAllowed {
            assert!(found.is_empty(), "no operation has a wrong method");
        } else {
            assert_eq!(found, [code.status().as_u16()], "{}", code.name());
        }
    }
    for operation in &page.operations {
        for status in operation.statuses.iter().filter(|status| **status >= 400) {
            let known = page.faults.values().flatten().any(|it| it == status);
            assert!(known, "{} {status}", operation.path);
        }
    }
}
