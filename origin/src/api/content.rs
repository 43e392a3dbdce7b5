//! The seam between the listeners and the content: who implements [`ContentApi`] answers for
//! timestamps, snapshots, statements and packs.

use std::future::Future;
use std::pin::Pin;

use http::request::Parts;
use protocol::{Code, Fault, Route};

use super::reply::{Reply, fault};

/// Answers for content. Called with `GET` and `HEAD` only, by peers that may read.
pub trait ContentApi: Send + Sync + 'static {
    /// Answers a request for [`Route::Timestamp`] (asked on both listeners), [`Route::Snapshot`],
    /// [`Route::Statement`] or [`Route::Pack`].
    fn answer<'a>(
        &'a self,
        route: Route,
        head: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
}

/// An origin without content: everything is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContent;

impl ContentApi for NoContent {
    fn answer<'a>(
        &'a self,
        _route: Route,
        _head: &'a Parts,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async { fault(&Fault::new(Code::NotFound, "nothing is published here")) })
    }
}
