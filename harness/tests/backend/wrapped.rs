//! A secret_id that comes wrapped.

use super::*;

on_both! {
    it_is_opened_once_and_kept,
    one_that_somebody_else_has_opened_is_told,
    one_that_somebody_has_wrapped_anew_is_not_opened,
    its_successor_is_opened_before_it_is_too_old,
    a_secret_id_that_is_not_wrapped_is_called_so,
}

/// A world whose backend has that token in its file.
fn world(test: &str, product: Product, token: impl Fn(&World) -> String) -> Option<World> {
    let mut world = World::new(test, product)?;
    let token = token(&world);
    put(&world.stage, "wrapped", &token);
    start_again(&mut world);
    Some(world)
}

/// As a restart does: nothing of what was in memory is left.
fn start_again(world: &mut World) {
    world.log_in_by(Auth::WrappedAppRole {
        mount: "approle".to_owned(),
        role_id_file: world.stage.path("role-id"),
        wrapping_token_file: world.stage.path("wrapped"),
        role: Some("kms".to_owned()),
    });
}

fn look_up(world: &World, token: &str) -> u16 {
    world.server.call("POST", "sys/wrapping/lookup", &json!({ "token": token })).0
}

fn it_is_opened_once_and_kept(product: Product) {
    let new = |world: &World| world.server.wrapped_secret_id();
    let Some(mut world) = world("wrapped", product, new) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
    // It serves for further logins, though the file is gone.
    std::fs::remove_file(world.stage.path("wrapped")).unwrap();
    world.revoke_tokens();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);

    start_again(&mut world);
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(error.to_string().contains("cannot read the wrapping token from"), "{error}");
    put(&world.stage, "wrapped", &world.server.wrapped_secret_id());
    world.heals();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}

fn one_that_somebody_else_has_opened_is_told(product: Product) {
    let stolen = |world: &World| {
        let token = world.server.wrapped_secret_id();
        let (status, _) = world.server.call_as(&token, "POST", "sys/wrapping/unwrap", &json!({}));
        assert_eq!(status, 200);
        token
    };
    let Some(world) = world("stolen", product, stolen) else { return };
    for _ in 0..2 {
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        let text = error.to_string();
        assert!(text.contains("opened before") && text.contains("somebody else"), "{text}");
        assert!(text.contains("wrapping token is not valid"), "{text}");
    }
    put(&world.stage, "wrapped", &world.server.wrapped_secret_id());
    world.heals();
}

/// Who has opened it can wrap it again, so that it looks untouched; but not in AppRole's name.
fn one_that_somebody_has_wrapped_anew_is_not_opened(product: Product) {
    let again = |world: &World| {
        let token = world.server.wrapped_secret_id();
        let opened = world.server.call_as(&token, "POST", "sys/wrapping/unwrap", &json!({})).1;
        world.server.wrap(&opened["data"])
    };
    let Some(world) = world("wrapped anew", product, again) else { return };
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
    assert!(error.to_string().contains("\"sys/wrapping/wrap\""), "{error}");
    let token = std::fs::read_to_string(world.stage.path("wrapped")).unwrap();
    assert_eq!(look_up(&world, token.trim()), 200, "it is not opened");
    assert!(!error.to_string().contains(token.trim()), "{error}");
}

fn its_successor_is_opened_before_it_is_too_old(product: Product) {
    let new = |world: &World| world.server.wrapped_secret_id();
    let Some(world) = world("successor", product, new) else { return };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let next = world.server.wrapped_secret_id();
    put(&world.stage, "wrapped", &next);
    assert_eq!(look_up(&world, &next), 200);
    world.observe().unwrap();
    assert_ne!(look_up(&world, &next), 200, "opened, although no login was due");
    // One that cannot be opened leaves the one before.
    put(&world.stage, "wrapped", "s.that-opens-nothing");
    world.observe().unwrap();
    world.revoke_tokens();
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}

/// A slip of the operator's, no theft; and it is not sent as if it were a token.
fn a_secret_id_that_is_not_wrapped_is_called_so(product: Product) {
    let plain = |world: &World| world.role.secret_id.clone();
    let Some(world) = world("plain", product, plain) else { return };
    for _ in 0..2 {
        let error = world.observe().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials, "{error}");
        let text = error.to_string();
        let file = world.stage.path("wrapped").display().to_string();
        for words in ["holds a secret_id as it is", "name the file in secretIdFile", &file] {
            assert!(text.contains(words), "{words}: {text}");
        }
        for words in ["opened before", "somebody else", world.role.secret_id.as_str()] {
            assert!(!text.contains(words), "{words}: {text}");
        }
    }
    put(&world.stage, "wrapped", &world.server.wrapped_secret_id());
    world.heals();
}
