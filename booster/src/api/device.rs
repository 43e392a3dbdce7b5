//! What is answered to devices alone: check-ins, waits, their manifests, and whether they may read a
//! fileset.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use protocol::{Fault, Route, STATEMENT_TYPE};
use transport::Body;

use super::reply::Document;
use super::{Api, From, reply};
use crate::offline::Phase;
use crate::roster::{Private, Turn};

impl Api {
    /// Room for the body of what `from` posts to `route`; none if no body is wanted there.
    ///
    /// # Errors
    ///
    /// Fails if there is no room.
    pub(crate) fn room(&self, from: &From, head: &Parts) -> Result<Option<Turn>, Fault> {
        let (Some(rosters), Some(device)) = (&self.rosters, &from.device) else {
            return Ok(None);
        };
        // Of a path is made something only where it matters: most ask for packs.
        let is_check_in = || matches!(Route::parse(head.uri.path()), Ok(Route::CheckIn));
        if head.method == Method::POST && is_check_in() && rosters.speaks() {
            rosters.enter(device).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The answer to what only a device asks; none if it is for everybody. Refuses a pack that the
    /// device may not read.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not for devices alone is answered to everybody"
    )]
    pub(super) async fn for_device(
        &self,
        from: &From,
        route: &Route,
        head: &Parts,
        body: &Bytes,
    ) -> Result<Option<Response<Body>>, Fault> {
        let (Some(rosters), Some(device)) = (&self.rosters, &from.device) else {
            return Ok(None);
        };
        let is_read = head.method == Method::GET || head.method == Method::HEAD;
        match route {
            Route::CheckIn | Route::Roster | Route::Wait if !rosters.speaks() => Ok(None),
            Route::CheckIn if head.method == Method::POST => {
                let said = rosters.check_in(device, body.clone());
                Box::pin(said).await.map(Some)
            }
            Route::CheckIn => Ok(Some(reply::wrong_method("POST"))),
            Route::Roster if head.method == Method::GET => rosters.proof(device).map(Some),
            Route::Wait if head.method == Method::GET => {
                let query = head.uri.query().unwrap_or_default();
                Box::pin(rosters.wait(device, query)).await.map(Some)
            }
            Route::Roster | Route::Wait => Ok(Some(reply::wrong_method("GET"))),
            Route::Statement(digest) if is_read => {
                let found = Box::pin(rosters.own(device, *digest)).await;
                Ok(found.map(|found| answer(found, head)))
            }
            Route::Pack(fileset, _) if is_read => {
                rosters.admit(device, fileset).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// What is asked for by `route` and was not found, if it is for this device alone.
    pub(super) async fn private(
        &self,
        from: &From,
        route: &Route,
        head: &Parts,
        phase: Phase,
    ) -> Option<Response<Body>> {
        let (rosters, device) = (self.rosters.as_ref()?, from.device.as_ref()?);
        let Route::Statement(digest) = route else {
            return None;
        };
        let found = rosters.private(device, *digest, phase).await;
        found.map(|found| answer(found, head))
    }
}

/// What no cache on the way may keep, or its head alone.
fn answer(found: Private, head: &Parts) -> Response<Body> {
    let (media_type, bytes) = match found {
        Private::Manifest(bytes) => (STATEMENT_TYPE, bytes),
        // Scripts are bytes: nobody is to run or show them because of their type.
        Private::Script(bytes) => ("application/octet-stream", bytes),
    };
    let document = Document {
        bytes,
        cache: "private, no-store",
        digest: None,
        media_type,
    };
    document.answer(head)
}
