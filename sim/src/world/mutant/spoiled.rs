//! A plugin's service that is broken where it answers kube-apiserver: the product's provider is behind it.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kleidi::authority::AnyAuthority;
use kleidi::backend::Backend;
use kleidi::provider::{Announced, Error, Provider, Stored};
use kleidi::secret::Secret;
use kleidi::server::Incoming as _;
use kleidi_proto::kms::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::Mutant;
use crate::limits::DEK_SOURCE_BYTES_MAX;
use crate::world::net::Listener;

/// How long a call may take.
const CALL: Duration = Duration::from_millis(2500);

/// Serves connections until it is told to end; one that is broken so does not hear that.
pub(in crate::world) async fn serve(
    mut listener: Listener,
    provider: Arc<Provider>,
    backend: Arc<dyn Backend>,
    told: impl Future<Output = ()>,
    mutant: Mutant,
) {
    // They end with us.
    let mut connections = JoinSet::new();
    let told = async {
        told.await;
        if mutant == Mutant::IgnoresTheEnd {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(told);
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut told => return,
            stream = listener.accept() => stream,
        };
        let Ok(stream) = stream else { return };
        let (provider, backend) = (Arc::clone(&provider), Arc::clone(&backend));
        let service = Spoiled { provider, backend, announced: Announced::default(), mutant };
        let service = TowerToHyperService::new(KeyManagementServiceServer::new(service));
        let stream = TokioIo::new(AnyAuthority::new(stream));
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
        connections.spawn(connection);
    }
}

struct Spoiled {
    provider: Arc<Provider>,
    backend: Arc<dyn Backend>,
    announced: Announced,
    mutant: Mutant,
}

fn refused(error: &Error) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl KeyManagementService for Spoiled {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        if self.mutant == Mutant::LooksForEachStatus {
            let _ = self.backend.observe(Instant::now() + CALL).await;
        }
        let key_id = self.provider.status(&self.announced, Instant::now() + CALL).await;
        let key_id = key_id.map_err(|error| refused(&error))?.to_string();
        let says_healthy = self.mutant == Mutant::SaysHealthy;
        let healthz = if says_healthy { "healthy" } else { "ok" }.to_owned();
        Ok(Response::new(StatusResponse { version: "v2".to_owned(), healthz, key_id }))
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let seed = Secret::from(request.into_inner().plaintext);
        let wrapped = self.provider.encrypt(&self.announced, seed, Instant::now() + CALL).await;
        let wrapped = wrapped.map_err(|error| refused(&error))?;
        let mut ciphertext = wrapped.ciphertext;
        if self.mutant == Mutant::AnswersTooLong {
            ciphertext.resize(DEK_SOURCE_BYTES_MAX + 1, 0);
        }
        let (key_id, annotations) = (wrapped.key_id.to_string(), wrapped.annotations);
        Ok(Response::new(EncryptResponse { ciphertext, key_id, annotations }))
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let DecryptRequest { ciphertext, key_id, annotations, .. } = request.into_inner();
        let stored = Stored { ciphertext, key_id, annotations };
        let seed = self.provider.decrypt(stored, Instant::now() + CALL).await;
        let seed = seed.map_err(|error| refused(&error))?;
        Ok(Response::new(DecryptResponse { plaintext: seed.into_bytes() }))
    }
}
