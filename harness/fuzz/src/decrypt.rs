//! A Decrypt request that anything may have become of.

use kleidi::limits;
use kleidi_proto::kms::{DecryptRequest, EncryptRequest};
use prost::Message as _;
use tonic::Code;

use super::stage::{Stage, request_for, run};

const SEED: [u8; 32] = [7; 32];

/// The first byte says how to read the rest: 0, as what is changed of a genuine request, bit by bit; 1, as what
/// is put behind it; otherwise as a request. A seed comes back for what was written alone; everything else is the caller's fault, and the
/// next call is served.
pub fn decrypt_request(bytes: &[u8]) {
    run(async {
        let stage = Stage::new();
        let mut client = stage.client().await;
        let plaintext = SEED.to_vec();
        let encrypt = EncryptRequest { plaintext, uid: String::new() };
        let genuine = request_for(client.encrypt(encrypt).await.unwrap().into_inner());
        let request = match bytes {
            [0, changes @ ..] => changed(&genuine, changes),
            [1, more @ ..] => {
                DecryptRequest::decode(&*[&genuine.encode_to_vec(), more].concat()).ok()
            }
            [_, request @ ..] => DecryptRequest::decode(request).ok(),
            [] => return,
        };
        if let Some(request) = request {
            let same = DecryptRequest { uid: genuine.uid.clone(), ..request.clone() } == genuine;
            let fits = request.encoded_len() <= limits::REQUEST_BYTES_MAX;
            match client.decrypt(request).await {
                Ok(answer) => {
                    assert!(same, "what nobody has written was read");
                    assert_eq!(&*answer.into_inner().plaintext, SEED);
                }
                Err(error) => {
                    assert!(!(same && fits), "{error}");
                    let code = error.code();
                    let theirs =
                        matches!(code, Code::InvalidArgument | Code::NotFound | Code::OutOfRange);
                    assert!(theirs, "{error}");
                }
            }
        }
        assert_eq!(&*client.decrypt(genuine).await.unwrap().into_inner().plaintext, SEED);
    });
}

/// The request with some bits turned; nothing, if it is no message any more.
fn changed(genuine: &DecryptRequest, changes: &[u8]) -> Option<DecryptRequest> {
    let mut bytes = genuine.encode_to_vec();
    bytes.iter_mut().zip(changes).for_each(|(byte, change)| *byte ^= change);
    DecryptRequest::decode(&*bytes).ok()
}
