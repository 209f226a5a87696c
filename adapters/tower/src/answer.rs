//! What a client is told of a request that was cut off.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use testudo::{Cause, CauseKind};

use crate::body::TrackedBody;

/// Why a request has no answer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutOff {
    /// Its own deadline.
    Deadline,
    /// The server stops.
    Stopping,
    /// Somebody has cancelled it.
    Cancelled,
}

impl CutOff {
    /// What the cancel of the request's task, or of something around it, stands for.
    pub(crate) fn by(cause: Option<&Cause>) -> Self {
        match cause.map(Cause::kind) {
            Some(CauseKind::Requested) => Self::Cancelled,
            // A deadline out there is the time that the server gives itself to stop. Else the task or its nursery is gone.
            _ => Self::Stopping,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Stopping | Self::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn grpc(self) -> (&'static str, &'static str) {
        match self {
            Self::Deadline => ("4", "deadline exceeded"),
            Self::Stopping => ("14", "the server stops"),
            Self::Cancelled => ("1", "cancelled"),
        }
    }

    /// The answer; to gRPC one that has only trailers, which stand where headers do.
    pub(crate) fn answer<B>(self, is_grpc: bool) -> Response<TrackedBody<B>> {
        let mut answer = Response::new(TrackedBody::empty());
        let headers = answer.headers_mut();
        if is_grpc {
            let (status, message) = self.grpc();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
            headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(message));
        } else {
            if self == Self::Stopping {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            *answer.status_mut() = self.status();
        }
        answer
    }
}
