//! `kleidi status`: asks a running plugin as kube-apiserver does; fit for a probe.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream as StdStream};

use tokio::net::UnixStream;
use tonic::Request;

use super::{Exit, StatusArgs, complain, say};
use crate::socket::Address;
use kleidi_proto::kms::{StatusRequest, StatusResponse};

pub(super) fn run(args: &StatusArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(args.timeout, ask(&args.socket))
            .await
            .unwrap_or_else(|_| Err(format!("{} does not answer", args.socket)))
    });
    match answer {
        Ok(status) => {
            say(&format!("healthz  {}", status.healthz));
            say(&format!("version  {}", status.version));
            say(&format!("key_id   {}", status.key_id));
            if status.healthz == "ok" { Exit::Ok } else { Exit::Unavailable }
        }
        Err(error) => complain(&error, Exit::Unavailable),
    }
}

async fn ask(address: &Address) -> Result<StatusResponse, String> {
    let stream =
        connect(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let mut client = kleidi_proto::client::connect(stream)
        .await
        .map_err(|error| format!("{address} does not speak HTTP/2: {error}"))?;
    match client.status(Request::new(StatusRequest {})).await {
        Ok(status) => Ok(status.into_inner()),
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
    }
}

fn connect(address: &Address) -> io::Result<UnixStream> {
    let stream = match address {
        Address::Path(path) => StdStream::connect(path)?,
        Address::Abstract(name) => StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?,
    };
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
