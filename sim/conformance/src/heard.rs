//! Whether the server itself said how a call ended.
//!
//! Where it did not, the gRPC library makes a status of its own: of an HTTP status, of a stream that ended
//! without trailers, or that was reset without an error. It cannot be told from the server's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use kleidi_proto::client::Connection;
use tonic::Code;
use tonic::codegen::Service;

/// Whether a `grpc-status` other than OK came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused(Arc<AtomicBool>);

impl Refused {
    /// So far.
    pub(crate) fn by_server(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn look(&self, headers: &HeaderMap) {
        if headers
            .get("grpc-status")
            .is_some_and(|code| Code::from_bytes(code.as_bytes()) != Code::Ok)
        {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// A connection, for one call.
pub(crate) struct Heard {
    connection: Connection,
    refused: Refused,
}

impl Heard {
    /// Notes in `refused` what the server says.
    pub(crate) fn new(connection: Connection, refused: Refused) -> Self {
        Self { connection, refused }
    }
}

impl Service<Request<tonic::body::Body>> for Heard {
    type Response = Response<Answer>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.connection.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let refused = self.refused.clone();
        let answer = self.connection.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            refused.look(answer.headers());
            Ok(answer.map(|body| Answer { body, refused }))
        })
    }
}

/// The rest of an answer: its message, and its trailers.
pub(crate) struct Answer {
    body: Incoming,
    refused: Refused,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.refused.look(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
