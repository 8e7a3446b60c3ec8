//! One request for several seeds, and whose is which in the answer.
//!
//! A seed that is taken for another's stays in kube-apiserver's cache for a day. So each item carries a
//! reference that nobody can guess, and the answer has to repeat it: results in another order, or an
//! answer that a proxy kept from before, are noticed.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::super::answer::{Act, Meaning, meaning_of_item};
use super::super::json::{self, Object, parse};
use super::super::{Data, Inner, Operation};
use super::ATTEMPTED;
use crate::backend::{BackendError, ErrorKind, UnwrapRequest};
use crate::secret::Secret;

/// Bytes of a reference.
const REFERENCE: usize = 12;

/// What a server says of one ciphertext.
#[derive(Deserialize)]
pub(in super::super) struct Decrypted<'a> {
    #[serde(default)]
    plaintext: &'a str,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    reference: &'a str,
}

impl Decrypted<'_> {
    /// A seed, where there is one and nothing that speaks against it.
    pub(in super::super) fn outcome(&self) -> Result<Secret, Meaning> {
        if let Some(error) = self.error.as_deref().filter(|error| !error.is_empty()) {
            return Err(meaning_of_item(error));
        }
        let strange = |reason: &str| {
            let (act, kind, reason) = (Act::Refuse, ErrorKind::Unavailable, reason.to_owned());
            Meaning { act, kind, reason, advice: "" }
        };
        let plaintext = json::decode(self.plaintext);
        let plaintext = plaintext.ok_or_else(|| strange("the answer is no base64"))?;
        if plaintext.is_empty() {
            return Err(strange("the answer has neither a plaintext nor an error"));
        }
        Ok(Secret::from(plaintext))
    }
}

/// Whether an answer has the results of a batch.
pub(in super::super) fn holds_results(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Results {
        #[allow(dead_code, reason = "that it is there is what counts")]
        batch_results: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<Data<Results>>(body).is_ok()
}

impl Inner {
    /// Asks for all of them at once; what is answered is in their order.
    pub(super) async fn exchange(
        &self,
        requests: &[Arc<UnwrapRequest>],
        deadline: Instant,
    ) -> Result<Vec<Result<Secret, Meaning>>, BackendError> {
        #[derive(Deserialize)]
        struct Results<'a> {
            #[serde(borrow)]
            batch_results: Vec<Decrypted<'a>>,
        }
        let unavailable =
            |reason: String| BackendError::new(ErrorKind::Unavailable, ATTEMPTED, reason);
        let mut references = vec![0; REFERENCE * requests.len()];
        let filled = self.queue.random.fill(&mut references);
        filled.map_err(|error| unavailable(error.to_string()))?;
        let references: Vec<_> = references.chunks_exact(REFERENCE).collect();

        let size = |request: &UnwrapRequest| 2 * (request.payload.len() + request.aad.len()) + 96;
        let body = Object::with_capacity(requests.iter().map(|request| size(request)).sum());
        let objects = requests.iter().zip(&references).map(|(request, reference)| {
            let ciphertext = String::from_utf8_lossy(&request.payload);
            Object::with_capacity(size(request))
                .text("ciphertext", &ciphertext)
                .bytes("associated_data", &request.aad)
                .bytes("reference", reference)
        });
        let body = body.objects("batch_input", objects);
        let operation = Operation::new(ATTEMPTED, self.settings.path("decrypt"), body);
        let answer = self.call(Operation { list: true, ..operation }, deadline).await?;

        let results = parse::<Data<Results<'_>>>(ATTEMPTED, &answer)?.data.batch_results;
        if results.len() != requests.len() {
            let (answers, questions) = (results.len(), requests.len());
            let address = &answer.address;
            let reason = format!("{address}: {answers} answers to {questions} questions");
            return Err(unavailable(reason));
        }
        if results.iter().all(|result| result.reference.is_empty()) {
            // It is the server that does not know of references, and not the answer that is another's.
            let reason = "the results of a list come without their references";
            return Err(BackendError::new(ErrorKind::Misconfigured, ATTEMPTED, reason));
        }
        let same = |(result, reference): (&Decrypted<'_>, &&[u8])| {
            json::decode(result.reference).is_some_and(|found| found.as_slice() == *reference)
        };
        if !results.iter().zip(&references).all(same) {
            let reason = format!("{}: the answer belongs to other questions", answer.address);
            let error = unavailable(reason);
            return Err(error.advise("does a proxy before the server keep or mix answers?"));
        }
        let place = format!("{}/v1/{}", answer.address, self.settings.path("decrypt"));
        let outcome = |result: &Decrypted<'_>| result.outcome().map_err(|why| why.at(&place));
        Ok(results.iter().map(outcome).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plaintext_without_an_error_is_a_seed() {
        let outcome = |said: &str| serde_json::from_str::<Decrypted<'_>>(said).unwrap().outcome();
        assert!(
            outcome(r#"{"plaintext":"c2VlZA==","error":""}"#).is_ok_and(|s| s.expose() == b"seed")
        );
        for (said, kind) in [
            ("{}", ErrorKind::Unavailable),
            (r#"{"plaintext":""}"#, ErrorKind::Unavailable),
            (r#"{"plaintext":"?"}"#, ErrorKind::Unavailable),
            (
                r#"{"plaintext":"c2VlZA==","error":"message authentication failed"}"#,
                ErrorKind::BadCiphertext,
            ),
            (r#"{"plaintext":"c2VlZA==","error":"who knows"}"#, ErrorKind::Misconfigured),
        ] {
            assert_eq!(outcome(said).err().unwrap().kind, kind, "{said}");
        }
    }
}
