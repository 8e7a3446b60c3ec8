//! Decrypts that travel together, where the server does not take them so.

use super::*;

on_both! {
    lists_are_forbidden,
    lists_are_forbidden_from_now_on,
}

/// Unwraps that many at the same time; all have to come.
fn unwrap_together(world: &World, wrapped: &Wrapped, count: usize) {
    let outcomes = world.runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (backend, request) = (Arc::clone(&world.backend), request(wrapped, AAD));
            let deadline = Instant::now() + Duration::from_millis(2500);
            calls.spawn(async move { backend.unwrap(request, deadline).await });
        }
        calls.join_all().await
    });
    for outcome in outcomes {
        let seed = outcome.unwrap_or_else(|error| panic!("one of {count}: {error}"));
        assert_eq!(seed.expose(), SEED);
    }
}

/// A policy that looks at the associated data of each call cannot look into lists.
fn forbid_lists(world: &World) {
    const DECRYPT: &str = "path \"transit/decrypt/kms\" {";
    let found = world.root("GET", "sys/policies/acl/kms-plugin", &json!(null));
    let policy = found["data"]["policy"].as_str().unwrap();
    assert!(policy.contains(DECRYPT), "{policy}");
    let denied = format!("{DECRYPT}\n  denied_parameters = {{ \"batch_input\" = [] }}");
    let policy = policy.replacen(DECRYPT, &denied, 1);
    world.root("POST", "sys/policies/acl/kms-plugin", &json!({ "policy": policy }));
}

fn lists_are_forbidden(product: Product) {
    let Some(world) = World::new("no lists", product) else { return };
    forbid_lists(&world);
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    for count in [1, 200, 1, 200] {
        unwrap_together(&world, &wrapped, count);
    }
}

fn lists_are_forbidden_from_now_on(product: Product) {
    let Some(world) = World::new("no lists now", product) else { return };
    let wrapped = world.wrap(&world.observe().unwrap()).unwrap();
    unwrap_together(&world, &wrapped, 200);
    forbid_lists(&world);
    for count in [200, 1, 200] {
        unwrap_together(&world, &wrapped, count);
    }
}
