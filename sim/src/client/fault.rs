//! Errors of calls, with grpc-go's codes and in its words as far as those are stable.

use std::error::Error as _;

use tonic::{Code, Status};

/// As Go prints it: `rpc error: code = Unavailable desc = …`.
#[must_use]
pub fn text(status: &Status) -> String {
    // Go has one l less.
    let code = match status.code() {
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// Why a call has no answer.
pub(super) enum Fault {
    /// It has not been sent: the connection had ended.
    NotSent,
    /// The server takes no more calls on this connection, and has not seen this one.
    GoneAway(Status),
    /// The server says that it has not seen it.
    Refused(Status),
    /// Anything else; answers of the plugin's, too.
    Failed(Status),
}

/// Tells them apart.
pub(super) fn fault(status: Status) -> Fault {
    let (mut transport, mut http2) = (None, None);
    let mut source = status.source();
    while let Some(error) = source {
        transport = transport.or(error.downcast_ref::<hyper::Error>());
        http2 = http2.or(error.downcast_ref::<h2::Error>());
        source = error.source();
    }
    let unavailable = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    match (transport, http2) {
        (Some(error), _) if error.is_canceled() => Fault::NotSent,
        (_, Some(error)) if error.is_go_away() && error.is_remote() => {
            Fault::GoneAway(unavailable(error))
        }
        (_, Some(error)) if error.is_reset() => match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Fault::Refused(unavailable(error)),
            Some(reason) => Fault::Failed(reset(reason)),
            None => Fault::Failed(unavailable(error)),
        },
        (Some(error), _) => {
            Fault::Failed(Status::unavailable(format!("error reading from server: {error}")))
        }
        (None, Some(error)) => Fault::Failed(unavailable(error)),
        (None, None) => Fault::Failed(status),
    }
}

/// Codes by grpc-go's table (`internal/transport/http_util.go`, `http2ErrConvTab`).
fn reset(reason: h2::Reason) -> Status {
    use h2::Reason;
    let code = match reason {
        Reason::FLOW_CONTROL_ERROR | Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::CANCEL => Code::Cancelled,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Status::new(code, format!("stream terminated by RST_STREAM with error code: {reason:?}"))
}
