//! Configurations, good and bad, and what upstream says of them.

use super::*;

const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
const KMS: &str = "{apiVersion: v2, name: vault, endpoint: 'unix:///run/kms.sock'}";

/// A configuration of one rule, in flow style.
fn one(resources: &str, providers: &str) -> String {
    format!("{HEAD}resources:\n- resources: [{resources}]\n  providers: [{providers}]\n")
}

fn kms(fields: &str) -> String {
    one("secrets", &format!("kms: {{{fields}}}"))
}

/// Field and detail of each fault that validation finds.
fn faults(file: &str, reload: bool) -> Vec<String> {
    match load(file.as_bytes(), Version::V1_37, reload) {
        Err(ConfigError::Validate(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("{file}: {other:?}"),
    }
}

fn plan(file: &str) -> Plan {
    load(file.as_bytes(), Version::V1_37, false).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_good_one_is_resolved() {
    let secret = "c2VjcmV0IGlzIHNlY3VyZQ==";
    let file = format!(
        "{HEAD}resources:\n\
         - resources: [secrets, pandas.awesome.bears.example]\n  providers: [kms: {KMS}, identity: {{}}]\n\
         - resources: ['*.apps']\n  providers: [aescbc: {{keys: [{{name: k, secret: {secret}}}]}}]\n\
         - resources: [secrets, configmaps]\n  providers: [{{kms: {{apiVersion: v2, name: b, endpoint: 'unix:///@b', timeout: 1m}}}}]\n"
    );
    let plan = plan(&file);
    assert_eq!(plan.plugins.len(), 2);
    assert_eq!(plan.plugins[0].timeout, std::time::Duration::from_secs(3));
    assert_eq!(plan.grace(), std::time::Duration::from_secs(126));
    let of = |resource: &str| plan.providers_of(&GroupResource::parse(resource)).map(<[_]>::to_vec);
    assert_eq!(of("secrets"), Some(vec![0, 1, 3]), "both rules'");
    assert_eq!(of("pandas.awesome.bears.example"), Some(vec![0, 1]));
    assert_eq!(of("deployments.apps"), Some(vec![2]));
    assert_eq!(of("configmaps"), Some(vec![3]));
    assert!(
        matches!(&plan.providers[2], Planned::AesCbc(keys) if *keys[0].1 == b"secret is secure")
    );
    assert_eq!(plan.providers[3], Planned::Kms(1));
}

#[test]
fn nothing_is_encrypted_that_is_not_named() {
    assert_eq!(
        plan(&one("secrets", "identity: {}")).providers_of(&GroupResource::parse("pods")),
        None
    );
}

#[test]
fn json_and_the_old_kind_are_read() {
    let file = r#"{"apiVersion": "v1", "kind": "EncryptionConfig", "resources": [
        {"resources": ["secrets"], "providers": [{"identity": {}}]}]}"#;
    assert_eq!(plan(file).providers, [Planned::Identity]);
}

#[test]
fn fields_are_validated_in_upstreams_words() {
    let r = "resources[0]";
    let p = "resources[0].providers[0]";
    let key = |field: &str| format!("aescbc: {{keys: [{{{field}}}]}}");
    for (file, wanted) in [
        (format!("{HEAD}resources: []\n"), vec!["resources: Required value: at least one resources is required".to_owned()]),
        (
            format!("{HEAD}resources: [{{}}]\n"),
            vec![
                format!("{r}.resources: Required value: at least one {r}.resources is required"),
                format!("{r}.providers: Required value: at least one {r}.providers is required"),
            ],
        ),
        (
            one("secrets", "{}"),
            vec![format!("{p}: Invalid value: {{\"AESGCM\":null,\"AESCBC\":null,\"Secretbox\":null,\"Identity\":null,\"KMS\":null}}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")],
        ),
        (one("secrets", "secretbox: {}"), vec![format!("{p}.secretbox.keys: Required value: at least one keys is required")]),
        (
            one("secrets", &key("")),
            vec![
                format!("{p}.aescbc.keys[0].name: Required value: name is a mandatory field for a key"),
                format!("{p}.aescbc.keys[0].secret: Required value: secret is a mandatory field for a key"),
            ],
        ),
        (one("secrets", &key("name: k, secret: '?'")), vec![format!("{p}.aescbc.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")]),
        (one("secrets", &key("name: k, secret: YWJj")), vec![format!("{p}.aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 3, expected one of [16 24 32]")]),
        (
            one("secrets", "secretbox: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}"),
            vec![format!("{p}.secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 16, expected one of [32]")],
        ),
        (kms("apiVersion: v2, endpoint: 'unix:///a'"), vec![format!("{p}.kms.name: Required value: name is a mandatory field for a provider")]),
        (kms("apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'"), vec![format!("{p}.kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'")]),
        (kms("apiVersion: v2, name: a, endpoint: 'unix:///a', timeout: -1s"), vec![format!("{p}.kms.timeout: Invalid value: \"-1s\": timeout should be a positive value")]),
        (kms("apiVersion: v2, name: a"), vec![format!("{p}.kms.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms")]),
        (kms("apiVersion: v2, name: a, endpoint: 'unix:///%zz'"), vec![format!("{p}.kms.endpoint: Invalid value: \"unix:///%zz\": invalid endpoint for kms provider, error: parse \"unix:///%zz\": invalid URL escape \"%zz\"")]),
        (kms("apiVersion: v2, name: a, endpoint: 'tcp://a'"), vec![format!("{p}.kms.endpoint: Invalid value: \"tcp://a\": unsupported scheme \"tcp\" for KMS provider, only unix is supported")]),
        (kms("apiVersion: v2, name: a, endpoint: 'unix:///a', cachesize: 7"), vec![format!("{p}.kms.cachesize: Invalid value: 7: cachesize is not supported in v2")]),
        (kms("name: a, endpoint: 'unix:///a', cachesize: 0"), vec![format!("{p}.kms.cachesize: Invalid value: 0: cachesize should be a positive value, or negative to disable")]),
        (kms("apiVersion: v3, name: a, endpoint: 'unix:///a'"), vec![format!("{p}.kms.apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported")]),
        (
            kms("apiVersion: v3, name: 'a:b', cachesize: 1, timeout: 0s"),
            ["name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'",
             "timeout: Invalid value: \"0s\": timeout should be a positive value",
             "endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms",
             "cachesize: Invalid value: 1: cachesize is not supported in v2",
             "apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported"]
                .map(|fault| format!("{p}.kms.{fault}")).to_vec(),
        ),
    ] {
        assert_eq!(faults(&file, false), wanted, "{file}");
    }
}

#[test]
fn several_kinds_in_one_element_do_not_show_keys() {
    let file = one(
        "secrets",
        "{identity: {}, aesgcm: {keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]}}",
    );
    let faults = faults(&file, false);
    assert!(faults[0].ends_with("more than one provider specified in a single element, should split into different list elements"));
    assert!(
        !faults[0].contains("c2Vj") && faults[0].contains("\"Secret\":\"REDACTED\""),
        "{faults:?}"
    );
}

#[test]
fn resources_are_validated_in_upstreams_words() {
    for (resource, says) in [
        ("Secrets", "should not contain capital letters"),
        ("'*'", "use '*.' to encrypt all the resources"),
        ("serviceipallocations", "do not have REST API/s"),
        ("events.events.k8s.io", "Use 'events' instead"),
        ("'*.extensions'", "'extensions' group has been removed"),
        ("'pods.*'", "across groups is not supported"),
    ] {
        let faults = faults(&one(resource, "identity: {}"), false);
        assert!(faults.len() == 1 && faults[0].contains(says), "{faults:?}");
        assert!(faults[0].starts_with("resources[0].resources[0]: Invalid value: "), "{faults:?}");
    }
    let repeated = "resources[0].resources: Invalid value: ";
    for (resources, wanted) in [
        ("a, a", &["the same resource"][..]),
        ("a, '*.'", &["overlapping"]),
        ("'*.apps', a.apps", &["overlapping"]),
        ("'*.*', a", &["overlapping"]),
        ("'*.apps', '*.apps'", &["the same resource", "overlapping"]),
    ] {
        let faults = faults(&one(resources, "identity: {}"), false);
        assert_eq!(faults.len(), wanted.len(), "{faults:?}");
        for (fault, says) in faults.iter().zip(wanted) {
            assert!(fault.starts_with(repeated) && fault.contains(says), "{faults:?}");
        }
    }
    plan(&one("'*.apps', a, 'b.batch'", "identity: {}"));
}

#[test]
fn names_are_unique_in_the_whole_file() {
    let rule = |kms: &str| format!("- resources: [secrets]\n  providers: [kms: {kms}]\n");
    let two = |kms: &str| format!("{HEAD}resources:\n{0}{0}", rule(kms));
    let duplicate = "resources[1].providers[0].kms.name: Invalid value: \"vault\": duplicate KMS provider name vault, names must be unique";
    assert_eq!(faults(&two(KMS), false), [duplicate]);
    let v1 = "{name: vault, endpoint: 'unix:///run/kms.sock'}";
    assert_eq!(faults(&two(v1), true), [duplicate], "v1 too, if files are read again");
    let built = load(two(v1).as_bytes(), Version::V1_37, false);
    assert!(
        matches!(built, Err(ConfigError::Build(fault)) if fault.starts_with("KMSv1 is deprecated"))
    );
}

#[test]
fn earlier_wildcards_mask() {
    for (first, second, says) in [
        ("'*.'", "secrets", "resource \"secrets\" is masked by earlier rule \"*.\""),
        ("'*.apps'", "a.apps", "resource \"a.apps\" is masked by earlier rule \"*.apps\""),
        ("'*.*'", "'*.'", "resource \"*.\" is masked by earlier rule \"*.*\""),
        ("'*.'", "'*.'", "resource \"*.\" is masked by earlier rule \"*.\""),
    ] {
        let file = format!(
            "{HEAD}resources:\n- {{resources: [{first}], providers: [identity: {{}}]}}\n\
             - {{resources: [{second}], providers: [identity: {{}}]}}\n"
        );
        let built = load(file.as_bytes(), Version::V1_37, false);
        assert_eq!(built, Err(ConfigError::Build(says.to_owned())), "{file}");
    }
}

#[test]
fn documents_are_read_strictly_since_1_31() {
    let good = one("secrets", &format!("kms: {KMS}"));
    for (file, says) in [
        (
            good.replace("name: vault", "name: vault, Timeout: 1s"),
            "unknown field \"resources[0].providers[0].kms.Timeout\"",
        ),
        (
            good.replace("name: vault", "name: a, name: vault"),
            "duplicate field \"resources[0].providers[0].kms.name\"",
        ),
        (format!("{good}metadata: {{}}\n"), "unknown field \"metadata\""),
        (
            one("secrets", "identity: {a: 1}"),
            "unknown field \"resources[0].providers[0].identity.a\"",
        ),
    ] {
        assert_eq!(load(file.as_bytes(), Version::V1_29, false).map(drop), Ok(()), "{file}");
        for version in [Version::V1_31, Version::V1_37] {
            let refused = load(file.as_bytes(), version, false);
            assert_eq!(refused, Err(ConfigError::Decode(vec![says.to_owned()])), "{file}");
        }
    }
}

#[test]
fn documents_that_cannot_be_read_are_refused_by_all() {
    for file in [
        String::new(),
        "# nothing\n".to_owned(),
        "[]".to_owned(),
        "kind: EncryptionConfiguration\n".to_owned(),
        "apiVersion: apiserver.config.k8s.io/v1\n".to_owned(),
        HEAD.replace("/v1", "/v2"),
        format!("{HEAD}resources: {{}}\n"),
        kms("apiVersion: v2, name: 7, endpoint: 'unix:///a'"),
        kms("apiVersion: v2, name: on, endpoint: 'unix:///a'"),
        kms("apiVersion: v2, name: a, endpoint: 'unix:///a', timeout: 3"),
        kms("apiVersion: v2, name: a, endpoint: 'unix:///a', timeout: 3 seconds"),
        kms("name: a, endpoint: 'unix:///a', cachesize: 1.5"),
        kms("name: a, endpoint: 'unix:///a', cachesize: 3000000000"),
        one("secrets", "identity"),
        format!("{HEAD}resources: [\n"),
        "{apiVersion: v1}".to_owned(),
        r#"{"apiVersion": "v1", "kind": "EncryptionConfig", "resources": [{"resources": ["a"], "providers": [{"kms": {"name": "a", "cachesize": 1.0}}]}]}"#.to_owned(),
    ] {
        for version in Version::ALL {
            let refused = load(file.as_bytes(), version, false);
            assert!(matches!(refused, Err(ConfigError::Decode(_))), "{file}: {refused:?}");
        }
    }
}

#[test]
fn yaml_is_that_of_upstreams_library() {
    let cache = |text: &str| {
        decode(kms(&format!("cachesize: {text}")).as_bytes(), Version::V1_37).unwrap().resources[0]
            .providers[0]
            .kms
            .as_ref()
            .unwrap()
            .cache_size
    };
    for (text, wanted) in [
        ("1_000", 1000),
        ("0x10", 16),
        ("010", 8),
        ("0b11", 3),
        ("1e3", 1000),
        ("7.0", 7),
        ("-1", -1),
        ("null", 1000),
        ("!!int 3", 3),
    ] {
        assert_eq!(cache(text), Some(wanted), "{text}");
    }
    let anchored = format!(
        "{HEAD}resources:\n- resources: &r [secrets, 2001-01-01]\n  providers:\n  - kms: &k {KMS}\n\
         - resources: *r\n  providers:\n  - kms:\n      <<: *k\n      name: other\n---\n[ not read"
    );
    let strict = decode(anchored.as_bytes(), Version::V1_31).unwrap_err();
    assert_eq!(
        strict,
        ["duplicate field \"resources[1].providers[0].kms.name\""],
        "a merged key cannot be set again"
    );
    let configuration = decode(anchored.as_bytes(), Version::V1_29).unwrap();
    let second = &configuration.resources[1];
    assert_eq!(second.resources, ["secrets", "2001-01-01"]);
    assert_eq!(second.providers[0].kms.as_ref().unwrap().name, "other");
    assert_eq!(second.providers[0].kms.as_ref().unwrap().endpoint, "unix:///run/kms.sock");
    let null = decode(one("secrets", "identity: null").as_bytes(), Version::V1_37).unwrap();
    assert!(!null.resources[0].providers[0].identity, "as good as not there");
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (to, from) in ('b'..='g').zip('a'..) {
        let ten = vec![format!("*{from}"); 10].join(", ");
        laughs += &[&to.to_string(), ": &", &to.to_string(), " [", &ten, "]\n"].concat();
    }
    assert!(
        decode(laughs.as_bytes(), Version::V1_29).unwrap_err()[0].contains("excessive aliasing")
    );
}

#[test]
fn the_verdict_says_where_it_ended() {
    let verdict = |file: &str| super::verdict(file.as_bytes(), Version::V1_37, false);
    assert_eq!(
        verdict(&one("secrets", "identity: {}")),
        serde_json::json!({"ok": true, "stage": "done", "errors": []})
    );
    let refused = verdict(&one("secrets", ""));
    assert_eq!(refused["errors"][0]["field"], "resources[0].providers");
    assert_eq!(refused["errors"][0]["type"], "FieldValueRequired");
    assert_eq!(verdict("a: b")["stage"], "decode");
}
