//! The socket, HTTP/2, and connections that come and go.

use kleidi_proto::kms::{StatusRequest, StatusResponse};
use tonic::Code;

use crate::check::Level::{Must, Should};
use crate::check::{Check, Outcome, Stop};
use crate::client::{SERVICE, answered, describe};
use crate::context::{Context, Demand as _, demand};
use crate::endpoint::Endpoint;
use crate::raw::{self, END_OR_ACK, Raw, kind};
use crate::source::Document::{Config, Controller, Grpc, GrpcTest, Mock, StatusCodes, Validation};
use crate::source::{lines, whole};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "transport.unix-h2c",
        level: Must,
        requirement: "The plugin speaks gRPC over HTTP/2 in plain text on a Unix socket.",
        sources: &[
            lines(Grpc, 59, 76, "dials without TLS, HTTP/2 from the first byte"),
            lines(Validation, 365, 450, "no other scheme than unix is accepted"),
        ],
        procedure: "Connect, send HTTP/2's preface, SETTINGS and a PING; then call Status.",
        asserts: "SETTINGS and the PING's acknowledgement come, and Status gets an answer of gRPC's, \
                  whichever.",
        run: |cx| Box::pin(unix_h2c(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "transport.authority-localhost",
        level: Must,
        requirement: "Calls with `:authority: localhost` are accepted.",
        sources: &[
            lines(Grpc, 61, 61, "kube-apiserver since 1.32 sends localhost"),
            lines(Mock, 66, 71, "upstream's mock plugin insists on it"),
        ],
        procedure: "Call Status with that authority. Then, for the record, with what kube-apiserver before 1.32 \
                    sends: the path of the socket, as it is and percent-encoded, or an abstract socket's \
                    `@name`.",
        asserts: "The first call is answered with OK.",
        run: |cx| Box::pin(authority_localhost(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "transport.reconnect",
        level: Must,
        requirement: "A new connection works after the last one ended, however it ended.",
        sources: &[whole(
            GrpcTest,
            "TestIntermittentConnectionLoss: one client outlives its connections",
        )],
        procedure: "Call Status; close in order; call on a new connection; on another one, break off \
                    in the middle of a call, when a later call has been answered there and another not \
                    yet; then call on ten new connections, over half a second.",
        asserts: "Each call is answered with OK.",
        run: |cx| Box::pin(reconnect(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "transport.two-connections",
        level: Must,
        requirement: "Two clients are served at once.",
        sources: &[
            lines(
                Controller,
                195,
                218,
                "a reload builds the new client before the old one is closed",
            ),
            lines(Config, 250, 250, "old connections live on for a grace period"),
        ],
        procedure: "Open two connections; call Status, Encrypt and Decrypt on each in turn.",
        asserts: "All calls succeed, and both connections report the same key_id.",
        run: |cx| Box::pin(two_connections(cx)),
        ..Check::DEFAULT
    },
    Check {
        id: "transport.unknown-method",
        level: Should,
        requirement: "An unknown method is answered with UNIMPLEMENTED, and the connection lives on.",
        sources: &[whole(StatusCodes, "UNIMPLEMENTED is for methods that are not there")],
        rationale: "Methods of a later interface are probed for like this.",
        procedure: "Call a method that the service does not have; then Status on the same connection.",
        asserts: "UNIMPLEMENTED, in an answer of gRPC's and not by an HTTP status alone; then OK.",
        run: |cx| Box::pin(unknown_method(cx)),
        ..Check::DEFAULT
    },
];

async fn unix_h2c(cx: &Context) -> Outcome {
    let settings = cx.settings();
    let mut raw =
        Raw::open(&settings.endpoints[0], settings.timeout, &[]).await.map_err(Stop::Failed)?;
    let missing = |what: &str| format!("no {what} came from the server");
    raw.find(|frame| frame.kind == kind::SETTINGS && frame.flags & END_OR_ACK == 0)
        .await
        .map_err(|error| Stop::Failed(format!("{}: {error}", missing("SETTINGS"))))?;
    let ping = raw::frame(kind::PING, 0, 0, b"12345678");
    raw.send(&ping).await.map_err(Stop::Failed)?;
    let acknowledges = |frame: &raw::Frame| {
        frame.kind == kind::PING && frame.flags & END_OR_ACK != 0 && frame.payload == b"12345678"
    };
    raw.find(acknowledges)
        .await
        .map_err(|error| Stop::Failed(format!("{}: {error}", missing("answer to PING"))))?;
    drop(raw);
    match cx.connect().await?.status().await {
        Err(status) if !answered(&status) => {
            Err(Stop::Failed(format!("Status got no answer of gRPC's: {}", describe(&status))))
        }
        _ => Ok(()),
    }
}

async fn authority_localhost(cx: &Context) -> Outcome {
    cx.connect().await?.status().await.or_failed("Status with :authority localhost")?;
    let settings = cx.settings();
    for (authority, what) in before_1_32(&settings.endpoints[0]) {
        if authority.len() < 127 {
            let accepted = if accepts(cx, &authority).await { "accepted" } else { "refused" };
            cx.note(format!("{what} sends another :authority, which is {accepted}"));
        }
    }
    Ok(())
}

/// What older apiservers send for `:authority`, and which.
fn before_1_32(endpoint: &Endpoint) -> Vec<(String, &'static str)> {
    let Some(path) = endpoint.file() else {
        let address = endpoint.to_string();
        let name = address.trim_start_matches("unix:///").to_owned();
        return vec![(name, "kube-apiserver before 1.32")];
    };
    let path = path.display().to_string();
    vec![
        (path.replace('/', "%2F"), "kube-apiserver 1.29 to 1.31"),
        (path, "kube-apiserver 1.27 and 1.28"),
    ]
}

async fn accepts(cx: &Context, authority: &str) -> bool {
    let settings = cx.settings();
    let call = raw::empty_call(1, authority, &format!("{SERVICE}Status"));
    let answer = async {
        let mut raw = Raw::open(&settings.endpoints[0], settings.timeout, &[]).await?;
        raw.send(&call).await?;
        raw.find(|frame| frame.stream == 1 || frame.kind == kind::GOAWAY).await
    };
    answer.await.is_ok_and(|frame| frame.kind == kind::HEADERS)
}

async fn reconnect(cx: &Context) -> Outcome {
    let settings = cx.settings();
    let first = cx.connect().await?;
    first.status().await.or_failed("Status on the first connection")?;
    drop(first);
    let second = cx.connect().await?;
    second.status().await.or_failed("Status after a connection was closed")?;
    drop(second);
    let mut raw =
        Raw::open(&settings.endpoints[0], settings.timeout, &[]).await.map_err(Stop::Failed)?;
    let call = |stream| raw::empty_call(stream, "localhost", &format!("{SERVICE}Status"));
    // Its headers without its message.
    let half = &call(1)[..call(1).len() - 14];
    raw.send(&[half, &call(3)].concat()).await.map_err(Stop::Failed)?;
    // The server has begun with the first when it answers the second; one that does not is taken as it is.
    let _ = raw.find(|frame| frame.stream == 3).await;
    // An answer that nobody reads makes the end a reset.
    let _ = raw.send(&call(5)).await;
    drop(raw);
    cx.goes_on("a connection was broken off").await
}

async fn two_connections(cx: &Context) -> Outcome {
    let (one, other) = (cx.connect().await?, cx.connect().await?);
    let mut ids = Vec::new();
    for _ in 0..3 {
        for client in [&one, &other] {
            ids.push(client.status().await.or_failed("Status")?.key_id);
            let seed = cx.seed();
            let wrapped = client.encrypt(&seed, cx.uid()).await.or_failed("Encrypt")?;
            cx.unwraps_to(client, &wrapped, &seed).await?;
        }
    }
    ids.dedup();
    demand(ids.len() == 1, || format!("the connections report different key_ids: {ids:?}"))
}

async fn unknown_method(cx: &Context) -> Outcome {
    let client = cx.connect().await?;
    let answer =
        client.unary::<StatusRequest, StatusResponse>("NoSuchMethod", StatusRequest {}).await;
    match answer {
        // The library makes UNIMPLEMENTED of an HTTP status, too.
        Err(status) if !answered(&status) => {
            return Err(Stop::Failed(format!("no answer of gRPC's: {}", describe(&status))));
        }
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => {
            return Err(Stop::Failed(format!("wanted UNIMPLEMENTED, got {}", describe(&status))));
        }
        Ok(_) => return Err(Stop::Failed("wanted UNIMPLEMENTED, got OK".to_owned())),
    }
    client.status().await.or_failed("Status on the same connection afterwards")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::before_1_32;

    #[test]
    fn old_authorities_are_those_of_the_kind_of_socket() {
        let sent = |endpoint: &str| -> Vec<String> {
            before_1_32(&endpoint.parse().unwrap()).into_iter().map(|(sent, _)| sent).collect()
        };
        assert_eq!(sent("unix:///@kms"), ["@kms"]);
        assert_eq!(sent("unix:///run/k.sock"), ["%2Frun%2Fk.sock", "/run/k.sock"]);
    }
}
