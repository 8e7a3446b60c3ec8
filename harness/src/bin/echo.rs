//! The floor for benchmarks: the same gRPC service on the same kind of socket and the same stack as the
//! plugin, doing nothing. `echo SOCKET`

use std::collections::BTreeMap;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kleidi_proto::kms::key_management_service_server::{
    KeyManagementService, KeyManagementServiceServer,
};
use kleidi_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

struct Echo;

#[tonic::async_trait]
impl KeyManagementService for Echo {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse::default()))
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let ciphertext = request.into_inner().plaintext;
        let annotations = BTreeMap::new();
        Ok(Response::new(EncryptResponse { ciphertext, key_id: String::new(), annotations }))
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let plaintext = request.into_inner().ciphertext.into();
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}

fn main() -> std::io::Result<()> {
    let socket = std::env::args_os().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let service = TowerToHyperService::new(KeyManagementServiceServer::new(Echo));
            tokio::spawn(async move {
                let http2 = http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
