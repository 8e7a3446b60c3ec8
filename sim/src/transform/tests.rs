//! Each provider alone and several together; compared with upstream in `tests/oracle/chains.rs`.

use super::*;
use crate::config;
use crate::time::Time;
use crate::version::Version;

const NOW: Time = Time(std::time::Duration::from_secs(1_800_000_000));
const RANDOM: [u8; RANDOM_BYTES] = [9; RANDOM_BYTES];
const CBC: &str = "aescbc: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}";
const GCM: &str = "aesgcm: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}";
const BOX: &str =
    "secretbox: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZSwgSSB0aGluaywgaXMgaXQ=}]}";
const IDENTITY: &str = "identity: {}";

/// The chain of `secrets` with these providers.
fn chain(providers: &[&str]) -> Chain {
    let providers: Vec<_> = providers.iter().map(|provider| format!("{{{provider}}}")).collect();
    let file = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - {{resources: [secrets], providers: [{}]}}\n",
        providers.join(", ")
    );
    let plan = config::load(file.as_bytes(), Version::V1_37, false).unwrap();
    Chain::new(&plan, &GroupResource::parse("secrets"))
}

fn write(chain: &Chain) -> Vec<u8> {
    chain.write(&mut [], NOW, &RANDOM, b"k8s\0", b"/a").unwrap()
}

fn read(chain: &Chain, value: &[u8]) -> Result<(Vec<u8>, bool), String> {
    match chain.begin(&[], value, b"/a") {
        Next::Done(read) => read.map(|read| (read.plaintext, read.stale)),
        next @ Next::Decrypt(..) => panic!("{next:?}"),
    }
}

#[test]
fn the_first_writes_and_all_read() {
    let plain = b"k8s\0".to_vec();
    for (provider, prefix, bytes) in [
        (CBC, "k8s:enc:aescbc:v1:k:", 32),
        (GCM, "k8s:enc:aesgcm:v1:k:", 32),
        (BOX, "k8s:enc:secretbox:v1:k:", 44),
        (IDENTITY, "", 4),
    ] {
        let value = write(&chain(&[provider]));
        assert!(value.starts_with(prefix.as_bytes()) && value.len() == prefix.len() + bytes);
        assert_eq!(read(&chain(&[provider]), &value), Ok((plain.clone(), false)), "{provider}");
        let other = if provider == CBC { GCM } else { CBC };
        assert_eq!(read(&chain(&[other, provider]), &value), Ok((plain.clone(), true)));
        assert_eq!(read(&chain(&[other]), &value), Err("no matching prefix found".to_owned()));
    }
}

#[test]
fn only_aesgcm_is_bound_to_its_place() {
    for (provider, bound) in [(CBC, false), (GCM, true), (BOX, false)] {
        let chain = chain(&[provider]);
        let moved = chain.begin(&[], &write(&chain), b"/b");
        assert_eq!(matches!(moved, Next::Done(Err(_))), bound, "{provider}");
    }
}

#[test]
fn the_first_key_writes_and_all_read() {
    let old = "aesgcm: {keys: [{name: old, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}";
    let both = "aesgcm: {keys: [{name: new, secret: AAAAAAAAAAAAAAAAAAAAAA==}, {name: old, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}";
    let value = write(&chain(&[old]));
    assert_eq!(read(&chain(&[both]), &value), Ok((b"k8s\0".to_vec(), true)));
    assert!(write(&chain(&[both])).starts_with(b"k8s:enc:aesgcm:v1:new:"));
    let refused = read(&chain(&[GCM]), &value);
    assert_eq!(
        refused,
        Err("no matching key was found for the provided AES transformer".to_owned())
    );
}

#[test]
fn identity_does_not_hand_out_what_is_encrypted() {
    let value = write(&chain(&[CBC]));
    assert_eq!(read(&chain(&[IDENTITY]), &value), Err("no matching prefix found".to_owned()));
    assert_eq!(read(&chain(&[IDENTITY, CBC]), &value), Ok((b"k8s\0".to_vec(), true)));
    let unnamed = Chain::new(&Plan::default(), &GroupResource::parse("pods"));
    assert_eq!(read(&unnamed, &value), Err(REFUSED.to_owned()));
    assert_eq!(read(&unnamed, b"{}"), Ok((b"{}".to_vec(), false)));
}

#[test]
fn what_is_spoilt_is_refused_in_upstreams_words() {
    let cut = |provider: &str, to: usize| {
        let value = write(&chain(&[provider]));
        let prefix = value.iter().rposition(|byte| *byte == b':').unwrap_or(0).min(23);
        read(&chain(&[provider]), &value[..prefix.min(value.len()) + 1 + to]).unwrap_err()
    };
    let short = "the stored data was shorter than the required size";
    assert_eq!(cut(CBC, 15), short);
    assert_eq!(cut(CBC, 17), "the stored data is not a multiple of the block size");
    // Upstream panics.
    assert_eq!(cut(CBC, 16), "the stored data is an initialization vector alone");
    assert_eq!(cut(GCM, 11), short);
    assert_eq!(cut(GCM, 12), "cipher: message authentication failed");
    assert_eq!(cut(BOX, 39), short);
    assert_eq!(cut(BOX, 40), "output array was not large enough for encryption");
}

#[test]
fn all_faults_are_said_once() {
    let value = write(&chain(&[GCM]));
    let other = "aesgcm: {keys: [{name: k, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}";
    let missing = "aesgcm: {keys: [{name: x, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}";
    let refused = read(&chain(&[other, missing, other]), &value);
    let wanted = "[cipher: message authentication failed, no matching key was found for the \
                  provided AES transformer]";
    assert_eq!(refused, Err(wanted.to_owned()));
}
