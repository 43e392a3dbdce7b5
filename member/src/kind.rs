//! What kinds of members there are.

use std::fmt;

use certs::{CaKind, Role};
use protocol::EnrolRole;

/// What a member is in its deployment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Keeps filesets near the devices of a branch.
    Booster,
    /// Lives on a device.
    Client,
}

impl Kind {
    /// The role in its certificate.
    #[must_use]
    pub fn role(self) -> Role {
        match self {
            Self::Booster => Role::Booster,
            Self::Client => Role::Client,
        }
    }

    /// The label under which it enrols.
    #[must_use]
    pub fn enrol_role(self) -> EnrolRole {
        match self {
            Self::Booster => EnrolRole::Booster,
            Self::Client => EnrolRole::Client,
        }
    }

    /// The program that it runs as.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Booster => "larder-booster",
            Self::Client => "larder-client",
        }
    }

    /// Whose certificates it judges: a client nobody's who is a client.
    #[must_use]
    pub fn judges(self) -> &'static [Role] {
        match self {
            Self::Booster => &[Role::Origin, Role::Client, Role::Signer],
            Self::Client => &[Role::Origin, Role::Booster, Role::Signer],
        }
    }

    /// Whether it needs the revocation list of a CA of that kind (none: a root).
    #[must_use]
    pub fn needs_list(self, ca: Option<CaKind>) -> bool {
        ca.is_none_or(|ca| self.judges().iter().any(|role| CaKind::of(*role) == ca))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Booster => "booster",
            Self::Client => "device",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_no_list_of_clients_and_a_booster_needs_all() {
        for ca in [None, Some(CaKind::Node), Some(CaKind::Content)] {
            assert!(Kind::Client.needs_list(ca), "{ca:?}");
            assert!(Kind::Booster.needs_list(ca), "{ca:?}");
        }
        assert!(!Kind::Client.needs_list(Some(CaKind::Client)));
        assert!(Kind::Booster.needs_list(Some(CaKind::Client)));
    }
}
