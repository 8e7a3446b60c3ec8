//! Stored values, as the model of kube-apiserver reads them.

use kleidi_proto::encryption::{ETCD_PREFIX, EncryptedObject};
use kleidi_sim::object::{Library, parse, to_value, validate};
use kleidi_sim::version::Version;
use prost::Message as _;

const PROVIDER: &str = "kms";

/// The record of a stored value: what is accepted is legal and means the same when it is written anew; and
/// where another library of protobuf reads it, the model reads the same and refuses what is not legal.
pub fn encrypted_object(record: &[u8]) {
    let value = [format!("{ETCD_PREFIX}{PROVIDER}:").as_bytes(), record].concat();
    for version in Version::ALL {
        let parsed = parse(&value, PROVIDER, version);
        if let Ok(object) = &parsed {
            assert_eq!(validate(object), Ok(()));
            let again = parse(&to_value(PROVIDER, object, version), PROVIDER, version);
            assert_eq!(again.as_ref(), Ok(object));
        }
        if version.protobuf() == Library::Google
            && let Ok(object) = EncryptedObject::decode(record)
        {
            assert_eq!(parsed.is_ok(), validate(&object).is_ok(), "{parsed:?}");
            assert!(parsed.is_err() || parsed.as_ref() == Ok(&object), "{parsed:?}");
        }
        assert!(parse(&value, "another", version).is_err(), "of another provider");
    }
}
