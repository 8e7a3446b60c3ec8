//! Versions of the key that an administrator puts out of use, destroys or brings back.

use super::*;

on_both! {
    a_version_below_the_least_for_encryption_is_left,
    a_trimmed_version_is_gone_and_the_rest_works,
    a_backup_that_was_rotated_again_is_another_key,
}

fn config(world: &World, settings: &serde_json::Value) {
    world.root("POST", "transit/keys/kms/config", settings);
}

/// `min_encryption_version`: what was announced may not wrap any more, before the next look shows why.
fn a_version_below_the_least_for_encryption_is_left(product: Product) {
    let Some(world) = World::new("least to encrypt", product) else { return };
    let before = world.observe().unwrap();
    let old = world.wrap(&before).unwrap();
    world.server.rotate();
    config(&world, &json!({"min_encryption_version": 2}));
    let error = world.wrap(&before).unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyNotFound, "{error}");
    assert!(error.to_string().contains("minimum encryption key version"), "{error}");
    assert_eq!(world.unwrap(&old).unwrap(), SEED, "it still unwraps");
    // The server computes nothing with version 1 any more that would show that it is the same key.
    let after = world.observe().unwrap();
    assert!(after.current.id.as_str().ends_with("-2"), "{after:?}");
    let new = world.wrap(&after).unwrap();
    assert_eq!(new.key, after.current.id);
    for wrapped in [&old, &new] {
        assert_eq!(world.unwrap(wrapped).unwrap(), SEED);
    }
    // After a restart as well, where nothing is remembered of version 1.
    let mut world = world;
    world.log_in_by(app_role(&world));
    assert_eq!(world.observe().unwrap().current, after.current);
    assert_eq!(world.unwrap(&old).unwrap(), SEED);
}

/// `min_available_version`: there is no way back, and that is said; all else goes on.
fn a_trimmed_version_is_gone_and_the_rest_works(product: Product) {
    let Some(mut world) = World::new("trimmed", product) else { return };
    let old = world.wrap(&world.observe().unwrap()).unwrap();
    world.server.rotate();
    let new = world.wrap(&world.observe().unwrap()).unwrap();
    config(&world, &json!({"min_decryption_version": 2, "min_encryption_version": 2}));
    world.root("POST", "transit/keys/kms/trim", &json!({"min_available_version": 2}));
    for restarted in [false, true] {
        let keys = world.observe().unwrap();
        assert_eq!(keys.current.id, new.key, "{restarted}");
        assert_eq!(world.unwrap(&new).unwrap(), SEED);
        assert_eq!(world.unwrap(&world.wrap(&keys).unwrap()).unwrap(), SEED);
        let error = world.unwrap(&old).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
        for words in ["transit/decrypt/kms", "min_decryption_version", "trimmed is gone"] {
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        world.log_in_by(app_role(&world));
    }
    // The server does not allow what would bring it back.
    let lower = json!({"min_decryption_version": 1});
    assert_eq!(world.server.call("POST", "transit/keys/kms/config", &lower).0, 400);
}

/// Version 2, then a backup of version 1, then another version 2: numbers are no identity.
fn a_backup_that_was_rotated_again_is_another_key(product: Product) {
    let Some(world) = World::new("restored", product) else { return };
    let first = world.wrap(&world.observe().unwrap()).unwrap();
    let unsafe_key =
        json!({"exportable": true, "allow_plaintext_backup": true, "deletion_allowed": true});
    config(&world, &unsafe_key);
    let backup = world.root("GET", "transit/backup/kms", &json!(null));
    world.server.rotate();
    let before = world.observe().unwrap();
    let second = world.wrap(&before).unwrap();

    let restore = json!({"backup": backup["data"]["backup"], "force": true});
    world.root("POST", "transit/restore/kms", &restore);
    // Nothing can be wrapped with what was announced, and Status is not to say otherwise.
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyNotFound, "{error}");
    assert!(error.to_string().contains("an older backup was restored"), "{error}");
    assert_eq!(world.unwrap(&first).unwrap(), SEED, "what the backup has is read");
    assert!(world.unwrap(&second).is_err());

    world.server.rotate();
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    for words in ["another key under the name", "transit/keys/kms", world.server.address()] {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let after = world.heals();
    assert!(after.current.id.as_str().ends_with("-2"), "{after:?}");
    assert_ne!(after.current.id, before.current.id, "another version 2");
    let third = world.wrap(&after).unwrap();
    for wrapped in [&first, &third] {
        assert_eq!(world.unwrap(wrapped).unwrap(), SEED);
    }
    let error = world.unwrap(&second).unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyNotFound, "{error}");
    assert!(error.to_string().contains("version 2 of transit/keys/kms is another key"), "{error}");
}
