//! `kleidi status`: asks a running plugin as kube-apiserver does; fit for a probe.

use std::io;

use tokio::net::UnixStream;
use tonic::Request;

use super::{Exit, StatusArgs, complain, say};
use crate::config::{Config, DEFAULT_LISTEN, LoadError};
use crate::service::HEALTHZ_OK;
use crate::socket::Address;
use kleidi_proto::kms::{StatusRequest, StatusResponse};

pub(super) fn run(args: &StatusArgs) -> Exit {
    let address = match args.socket.clone().map_or_else(|| configured(args), Ok) {
        Ok(address) => address,
        Err(error) => return complain(&error, Exit::Config),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(args.timeout, ask(&address))
            .await
            .unwrap_or_else(|_| Err(format!("{address} does not answer")))
    });
    match answer {
        Ok(status) => {
            say(&format!("healthz  {}", status.healthz));
            say(&format!("version  {}", status.version));
            say(&format!("key_id   {}", status.key_id));
            if status.healthz == HEALTHZ_OK { Exit::Ok } else { Exit::Unavailable }
        }
        Err(error) => complain(&error, Exit::Unavailable),
    }
}

/// Where the configuration says that the plugin listens.
fn configured(args: &StatusArgs) -> Result<Address, LoadError> {
    let named = args.config.config.as_deref();
    match Config::address(named) {
        // A probe often may not read the configuration: then the socket is taken to be at its usual
        // place. But whoever names a file asks its plugin, and no other.
        Err(error) if named.is_none() && error.is_out_of_reach() => {
            Ok(Address::Path(DEFAULT_LISTEN.into()))
        }
        address => address,
    }
}

async fn ask(address: &Address) -> Result<StatusResponse, String> {
    let stream =
        connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let mut client = kleidi_proto::client::connect(stream)
        .await
        .map_err(|error| format!("{address} does not speak HTTP/2: {error}"))?;
    match client.status(Request::new(StatusRequest {})).await {
        Ok(status) => Ok(status.into_inner()),
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
    }
}

/// Connects without blocking: the queue of a plugin that does not accept can be full.
async fn connect(address: &Address) -> io::Result<UnixStream> {
    match address {
        Address::Path(path) => UnixStream::connect(path).await,
        Address::Abstract(name) => UnixStream::connect(format!("\0{name}")).await,
    }
}
