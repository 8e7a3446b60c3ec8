//! Authorities that are replaced while a client runs, and what is wrong with a connection.

use std::fs;

use kleidi_harness::{Authority, Plugin, wait_healthy};

use super::*;

on_both! {
    an_authority_is_replaced_without_a_restart,
    an_unknown_authority_is_told_and_heals,
    a_name_that_is_not_in_the_certificate_is_told,
    http_spoken_to_tls_and_tls_to_http_are_told,
}

struct Secured {
    world: World,
    /// Of the server.
    authority: Authority,
    /// What the client trusts.
    trusted: PathBuf,
}

fn secured(test: &str, product: Product) -> Option<Secured> {
    let stage = Stage::new(&format!("{test} {product:?}"));
    let authority = Authority::new(&stage, "authority");
    let server = VaultServer::tls(&stage, "server", product, &authority)?;
    let trusted = stage.path("trusted.pem");
    fs::copy(authority.file(), &trusted).unwrap();
    let mut world = World::on(stage, server);
    with_tls(&mut world, &trusted, None);
    Some(Secured { world, authority, trusted })
}

fn with_tls(world: &mut World, trusted: &std::path::Path, server_name: Option<&str>) {
    let (ca_file, server_name) = (Some(trusted.to_owned()), server_name.map(ToOwned::to_owned));
    let tls = Tls { ca_file, server_name, ..Tls::default() };
    let settings = Settings { tls, ..settings(&world.server, app_role(world)) };
    world.backend = Arc::new(Transit::new(settings, Arc::new(OsRandom)));
}

/// As an operator does it: the file with both, the server's certificate, the file with the new one.
fn an_authority_is_replaced_without_a_restart(product: Product) {
    let Some(Secured { mut world, authority, .. }) = secured("authority", product) else { return };
    let trusted = authority.file();
    let mut plugin = Plugin::on_transit(&world.stage, "plugin", &world.server, &world.role).start();
    let key_id = wait_healthy(&plugin, SOON);
    let logged = |plugin: &Plugin, text: &str| plugin.process.log().matches(text).count();
    let well = |plugin: &Plugin| {
        let mut client = plugin.client();
        let wrapped = client.encrypt(SEED).expect("it encrypts");
        assert_eq!(client.decrypt(&wrapped).expect("it decrypts"), SEED);
    };

    // Half a file, for some periods: said once, and nothing else.
    let whole = fs::read(&trusted).unwrap();
    fs::write(&trusted, &whole[..whole.len() / 2]).unwrap();
    let unusable = "files for TLS cannot be used any more: what they were is used on";
    within(SOON, "it to be logged", || match logged(&plugin, unusable) {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    std::thread::park_timeout(Duration::from_millis(2500));
    assert_eq!(wait_healthy(&plugin, Duration::ZERO), key_id);
    well(&plugin);
    assert_eq!(logged(&plugin, unusable), 1);

    let next = Authority::new(&world.stage, "next");
    let both = [whole, fs::read(next.file()).unwrap()].concat();
    fs::write(&trusted, both).unwrap();
    let anew = "connections are made anew";
    within(SOON, "the file with both", || match logged(&plugin, anew) {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    world.server.present(&next);
    fs::copy(next.file(), &trusted).unwrap();
    within(SOON, "the file with the new one", || match logged(&plugin, anew) {
        1 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    within(SOON, "all to be well", || plugin.client().status().map_err(|error| error.to_string()));
    well(&plugin);
    assert_eq!(logged(&plugin, "the KMS is out of order"), 0);
    assert_eq!(plugin.process.terminate(), 0);
}

fn an_unknown_authority_is_told_and_heals(product: Product) {
    let Some(Secured { mut world, trusted, .. }) = secured("unknown authority", product) else {
        return;
    };
    let keys = world.observe().unwrap();
    let wrapped = world.wrap(&keys).unwrap();
    let next = Authority::new(&world.stage, "next");
    fs::copy(next.file(), &trusted).unwrap();
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("is caFile the server's authority"), "{error}");
    world.server.present(&next);
    assert_eq!(world.heals().current, keys.current);
    assert_eq!(world.unwrap(&wrapped).unwrap(), SEED);
}

fn a_name_that_is_not_in_the_certificate_is_told(product: Product) {
    let Some(Secured { mut world, trusted, .. }) = secured("name", product) else { return };
    with_tls(&mut world, &trusted, Some("vault.example"));
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    let text = error.to_string();
    assert!(text.contains("vault.example") && text.contains("serverName"), "{text}");
    with_tls(&mut world, &trusted, Some("localhost"));
    world.observe().unwrap();
}

fn http_spoken_to_tls_and_tls_to_http_are_told(product: Product) {
    let Some(Secured { mut world, .. }) = secured("schemes", product) else { return };
    let mut wrong = settings(&world.server, app_role(&world));
    wrong.addresses = vec![world.server.address().replace("https:", "http:")];
    world.backend = Arc::new(Transit::new(wrong, Arc::new(OsRandom)));
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("has to begin with https://"), "{error}");

    let Some(plain) = VaultServer::start(&world.stage, "plain", product) else { return };
    let mut wrong = settings(&world.server, app_role(&world));
    wrong.addresses = vec![plain.address().replace("http:", "https:")];
    world.backend = Arc::new(Transit::new(wrong, Arc::new(OsRandom)));
    let error = world.observe().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("begin with http://"), "{error}");
}
