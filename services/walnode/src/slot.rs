//! A service that comes later: whoever listens for a node from its first moment on has a slot for what
//! the node cannot answer before it is adopted.

use std::convert::Infallible;
use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

/// The place of a service. Until it is there, every call is answered FAILED_PRECONDITION, and why:
/// UNAVAILABLE may come from anywhere on the way, and then leaves open what was done. Clones are the same
/// place.
pub struct Slot<S> {
    service: Arc<OnceLock<S>>,
    why: &'static str,
}

impl<S> Slot<S> {
    /// An empty one; `why` is answered meanwhile.
    #[must_use]
    pub fn new(why: &'static str) -> Self {
        let service = Arc::default();
        Self { service, why }
    }

    /// Puts `service` into it. The first stays.
    pub fn fill(&self, service: S) {
        let _ = self.service.set(service);
    }
}

impl<S> Clone for Slot<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            why: self.why,
        }
    }
}

impl<S> fmt::Debug for Slot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("filled", &self.service.get().is_some())
            .finish_non_exhaustive()
    }
}

impl<S: NamedService> NamedService for Slot<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Slot<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As every service of tonic's: what it cannot take it answers.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.service.get() {
            Some(service) => Box::pin(service.clone().call(request)),
            None => {
                let refused = Status::failed_precondition(self.why);
                Box::pin(future::ready(Ok(refused.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_slot_says_that_nothing_was_done() {
        let mut slot = Slot::<tonic::service::Routes>::new("too early");
        let Ok(answer) = slot.call(Request::new(Body::empty())).await;
        let refused = Status::from_header_map(answer.headers()).expect("a status");
        // A caller that proposes goes on to the next node only if it is told so.
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert_eq!(refused.message(), "too early");
    }
}
