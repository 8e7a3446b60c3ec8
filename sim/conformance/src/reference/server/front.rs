//! What stands between HTTP/2 and the service: nothing, but for the faults that are seen here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use kleidi_proto::kms::key_management_service_server::KeyManagementServiceServer;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::client::SERVICE;
use crate::ordered::OrderedDecryptRequest;
use crate::reference::faulty::{BY_CANCEL, BY_END, CUT_OFF, Faulty};
use crate::reference::mutant::Fault;

/// What all connections share.
pub struct Front {
    fault: Option<Fault>,
    slots: Arc<Semaphore>,
    /// Counts how often all connections were ended.
    ended: watch::Sender<usize>,
}

impl Front {
    /// With this fault; what is counted up in `ended` ends all connections.
    pub fn new(fault: Option<Fault>, ended: watch::Sender<usize>) -> Self {
        Self { fault, slots: Arc::new(Semaphore::new(16)), ended }
    }
}

/// A connection's service.
#[derive(Clone)]
pub struct Service {
    inner: KeyManagementServiceServer<Faulty>,
    front: Arc<Front>,
    /// Whether a call has begun on the connection.
    begun: Arc<AtomicBool>,
}

impl Service {
    /// In front of `inner`.
    pub fn new(
        inner: KeyManagementServiceServer<Faulty>,
        front: Arc<Front>,
        begun: Arc<AtomicBool>,
    ) -> Self {
        Self { inner, front, begun }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.begun.store(true, Ordering::SeqCst);
        Box::pin(self.clone().answer(request))
    }
}

impl Service {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let answer = self.uncut(request).await?;
        let reason = match answer.headers().get(CUT_OFF) {
            None => return Ok(answer),
            Some(how) if how == BY_END => return Ok(Response::new(Body::empty())),
            Some(how) if how == BY_CANCEL => h2::Reason::CANCEL,
            Some(_) => h2::Reason::INTERNAL_ERROR,
        };
        Ok(Response::new(Body::new(CutOff(reason))))
    }

    async fn uncut(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        let known = ["Status", "Encrypt", "Decrypt"];
        match self.front.fault {
            Some(Fault::AnswersNotFound) => Ok(not_found()),
            Some(Fault::UnknownMethodIsNotFound)
                if path.strip_prefix(SERVICE).is_some_and(|method| !known.contains(&method)) =>
            {
                Ok(not_found())
            }
            Some(Fault::ReflectionIsNotFound) if path.starts_with("/grpc.reflection.") => {
                Ok(not_found())
            }
            Some(Fault::RefusesLocalhost)
                if request.uri().authority().is_some_and(|host| host == "localhost") =>
            {
                Ok(Status::permission_denied("unknown host").into_http())
            }
            Some(Fault::UnknownMethodIsInternal)
                if path.strip_prefix(SERVICE).is_some_and(|method| !known.contains(&method)) =>
            {
                Ok(Status::internal("no such method").into_http())
            }
            Some(Fault::Reflection) if path.starts_with("/grpc.reflection.") => Ok(empty_message()),
            Some(Fault::WantsAnnotationsInOrder | Fault::BrokenMessageEndsAll)
                if path.ends_with("/Decrypt") =>
            {
                self.decrypt(request).await
            }
            Some(Fault::SlotsUntilRead) => {
                let slot = Arc::clone(&self.front.slots).acquire_owned().await.ok();
                let answer = self.inner.call(request).await?;
                Ok(answer.map(|body| Body::new(Held { body, _slot: slot })))
            }
            _ => self.inner.call(request).await,
        }
    }

    /// Looks at the message before anything is done with it.
    async fn decrypt(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let bytes =
            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // A gRPC message begins with 5 bytes: compressed or not, and its length.
        let message = OrderedDecryptRequest::decode(bytes.get(5..).unwrap_or_default());
        let sorted = |message: &OrderedDecryptRequest| {
            message.annotations.is_sorted_by_key(|entry| entry.key.clone())
        };
        match (self.front.fault, message) {
            (Some(Fault::BrokenMessageEndsAll), Err(_)) => {
                self.front.ended.send_modify(|count| *count += 1);
            }
            (Some(Fault::WantsAnnotationsInOrder), Ok(message)) if !sorted(&message) => {
                return Ok(Status::invalid_argument("annotations are not sorted").into_http());
            }
            _ => {}
        }
        self.inner.call(Request::from_parts(head, Full::new(bytes))).await
    }
}

/// HTTP's, and nothing of gRPC's.
fn not_found() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

/// An answer with one message without fields.
fn empty_message() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = Full::new(Bytes::from_static(&[0; 5]));
    let mut response =
        Response::new(Body::new(message.with_trailers(std::future::ready(Some(Ok(trailers))))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A body in place of which the stream is reset, for this reason.
struct CutOff(h2::Reason);

impl http_body::Body for CutOff {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        Poll::Ready(Some(Err(self.0.into())))
    }
}

/// A body that holds a slot until it has been sent.
struct Held {
    body: Body,
    _slot: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
