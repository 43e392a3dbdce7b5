//! What `docs/openapi.yaml` says, as far as it is held against the code: a page that is written in
//! one way only, so that it can be read line by line.

use std::collections::BTreeMap;
use std::path::Path;

use content::{Digest, PackId};
use protocol::{EnrolRole, Route};

/// The page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// What can be asked for.
    pub operations: Vec<Operation>,
    /// The codes of faults, with the statuses under which they come.
    pub faults: BTreeMap<String, Vec<u16>>,
    /// The codes that any fault may have.
    pub codes: Vec<String>,
}

/// One method of one path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Operation {
    /// The path, with names in braces.
    pub path: String,
    /// `get` or `post`.
    pub method: String,
    /// What [`Route::kind`] says.
    pub kind: String,
    /// The listeners that have it.
    pub tags: Vec<String>,
    /// The statuses of its answers.
    pub statuses: Vec<u16>,
}

impl Page {
    /// The page of this tree.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.yaml");
        Ok(Self::parse(&std::fs::read_to_string(path)?))
    }

    fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut next = Operation::default();
        let mut in_codes = false;
        for line in text.lines() {
            let words = line.trim();
            let depth = line.len() - line.trim_start().len();
            in_codes &= words.starts_with("- ");
            if depth == 2 && words.starts_with('/') {
                next = Operation::default();
                next.path = words.trim_end_matches(':').to_owned();
            } else if let Some(kind) = words.strip_prefix("x-larder-route: ") {
                next.kind = kind.to_owned();
            } else if depth == 4 && matches!(words, "get:" | "post:") {
                next.method = words.trim_end_matches(':').to_owned();
                page.operations.push(next.clone());
            } else if let Some(operation) = page.operations.last_mut()
                && let Some(tags) = words.strip_prefix("tags: ")
            {
                operation.tags = list(tags);
            } else if let Some(operation) = page.operations.last_mut()
                && depth == 8
                && let Some((status, _answer)) = words.split_once(": {$ref: ")
            {
                operation
                    .statuses
                    .extend(status.trim_matches('"').parse::<u16>());
            } else if let Some(rest) = words.strip_prefix("- properties: {status: {const: ") {
                page.fault(rest);
            } else if depth == 10 && words == "enum:" && page.codes.is_empty() {
                in_codes = true;
            } else if in_codes {
                page.codes.push(words.trim_start_matches("- ").to_owned());
            }
        }
        page
    }

    /// Reads the end of `{status: {const: 404}, code: {enum: [not-found]}}`.
    fn fault(&mut self, rest: &str) {
        let Some((status, codes)) = rest.split_once("}, code: {enum: ") else {
            return;
        };
        for code in list(codes.trim_end_matches('}')) {
            let statuses = self.faults.entry(code).or_default();
            statuses.extend(status.parse::<u16>());
        }
    }

    /// What is said of the routes of that kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Operation> {
        let operations = self.operations.iter();
        operations.filter(move |operation| operation.kind == kind)
    }
}

impl Operation {
    /// A path to ask for, where names lead to nothing that is there.
    #[must_use]
    pub fn sample(&self) -> String {
        let hex = Digest::of(b"nothing").hex();
        [
            ("{issuer}", hex.as_str()),
            ("{digest}", &format!("sha256:{hex}")),
            ("{name}", "nothing"),
            ("{pack}", &hex),
            ("{label}", "client"),
        ]
        .iter()
        .fold(self.path.clone(), |path, (name, value)| {
            path.replace(name, value)
        })
    }
}

/// The words of `[a, b]`.
fn list(text: &str) -> Vec<String> {
    let words = text.trim_matches(['[', ']']).split(',');
    words.map(|word| word.trim().to_owned()).collect()
}

/// One route of each kind. A new kind does not compile before it has its place here.
#[must_use]
pub fn routes() -> Vec<Route> {
    let digest = Digest::of(b"nothing");
    let name = || "nothing".parse().expect("it is a good name");
    let after = |route: &Route| {
        Some(match route {
            Route::CaCerts => Route::CheckIn,
            Route::CheckIn => Route::Crl(*digest.as_raw()),
            Route::Crl(_) => Route::Crls,
            Route::Crls => Route::Deployment,
            Route::Deployment => Route::Enrol(EnrolRole::Client),
            Route::Enrol(_) => Route::Hello,
            Route::Hello => Route::Inventory,
            Route::Inventory => Route::Log,
            Route::Log => Route::Pack(name(), PackId(digest)),
            Route::Pack(..) => Route::Reenrol(EnrolRole::Client),
            Route::Reenrol(_) => Route::Relayed,
            Route::Relayed => Route::Reports,
            Route::Reports => Route::Roster,
            Route::Roster => Route::Snapshot(digest),
            Route::Snapshot(_) => Route::Statement(digest),
            Route::Statement(_) => Route::Timestamp,
            Route::Timestamp => Route::Wait,
            Route::Wait => return None,
        })
    };
    std::iter::successors(Some(Route::CaCerts), after).collect()
}
