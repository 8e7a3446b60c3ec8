//! What fields are filled with.

/// Scalars that YAML or JSON take for something else, or for nothing.
#[rustfmt::skip]
pub const ODD: &[&str] = &[
    "null", "~", "true", "yes", "No", "on", "y", "0", "7", "-1", "+1", "1.5", "1e3", "1e400",
    "0x10", "0o7", "010", "0b11", "1_000", "9223372036854775808", "18446744073709551616",
    "2147483648", ".5", "5.", ".inf", ".nan", "-.inf", "2001-01-01", "!!str 7", "!!int 7",
    "!!int a", "!!float 7", "!!bool yes", "!!null x", "!!binary YQ==", "!x 7",
    "!!binary cG9kcw==", "!!binary YQ", "!!binary /2H/", "!!binary \"Y\\nQ==\"", "!!float .inf",
    "!!timestamp 2001-01-01", "''", "\"\"", "'it''s'", "\"\\x41\\u0042\\n\"", "<<", "=", "a b",
    "a: b", "[]", "{}", "[[]]", "{a: 1}", "-", "?", "*a", "&a", "&a b", "!!set {a}", "'7'",
    "1:30", "0.0", "1.0", "0x", "0b2", "1__0", "_1", "+.5", "1e", "a#b", "a #b", "!", "! 7", "|",
    ">", "@a", "`a`", "%a", "\"a", "'a", "1.", "1.e3", "12345678901234567890123", "0.1e-2",
    "\u{e9}", "\"\u{7f}\"", "",
];

/// Endpoints, good and bad.
#[rustfmt::skip]
pub const ENDPOINTS: &[&str] = &[
    "unix:///run/kms.sock", "unix:///@kms", "UNIX:/a", "unix:", "", "unix://run/a", "unix:rel",
    "tcp://a", "http://a:1/b", "/a", "a", "unix:///a?b#c", "unix:///b%25c.sock", "unix:///%zz",
    "unix:///a%", "unix://a:b/c", "unix://[::1]/c", "unix://[::1/c", "unix://a b/c",
    "unix://a%2fb/c", "unix://u:p@h/c", "unix://a b@c/d", ":///a", "1:b", "unix:///a#%zz",
    "unix://*/a", "*", "unix:///\u{e4} b", "unix:///a\u{7f}", "unix://[fe80::1%25en0]/a",
    "unix://[::1]:80/a", "unix://a::1/b", "unix:///%2525", "unix:///%00", "unix:///a\n", "//a/b",
    "unix://%/a", "unix:///%a\u{e4}", "unix:///a%3F%23%25zz", "unix:///\u{200b}%", "unix:a%zz",
    "unix:?%zz", "?", "#", "unix://#%", "unix:///a;b,c=d!", "unix:///a<b>\"c\\d^e`f{g|h}",
    "unix://a<b>/c", "unix://a\"/c", "unix://a\\b/c", "unix://:1/a", "unix://a:/b",
    "unix://a:b:c/d", "unix://@/a", "unix://%41/a", "unix://[::1]b/c", "unix://a[b]/c",
    "unix://[1::2%25a%41]/a", "unix://u%zz@h/a", "unix://u:%zz@h/a",
];

/// Timeouts, good and bad.
#[rustfmt::skip]
pub const DURATIONS: &[&str] = &[
    "3s", "1m", "0s", "-1s", "1h2m3.5s", "1", "0", "", "s", "1x", "-0", "+1ms", ".5s",
    "9223372036854775807ns", "9223372036854775808ns", "1us", "1\u{b5}s", "1\u{3bc}s", "3 s",
    "1e3s", "-.5ns", "1.s", "..s", "2562047h47m16.854775807s", "9999999999999999999s",
    "0.3333333333333333333h", "1.00000000000000000000000001s", "-1ns",
];

/// Keys in base64 or almost, of good and bad lengths.
#[rustfmt::skip]
pub const SECRETS: &[&str] = &[
    "c2VjcmV0IGlzIHNlY3VyZQ==", "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/",
    "c2VjcmV0IGlzIHNlY3VyZSwgSSB0aGluaywgaXMgaXQ=", "YWJj", "", "?", "YQ", "YQ==", "YR==",
    "c2VjcmV0IGlz\nIHNlY3VyZQ==", "c2VjcmV0IGlzIHNlY3VyZR==", "c2VjcmV0IGlzIHNlY3VyZQ=",
    " c2VjcmV0IGlzIHNlY3VyZQ==", "c2VjcmV0IGlzIHNlY3VyZQ==\r\n", "AAAAAAAAAAAAAAAAAAAAAA==",
    "c2VjcmV0IGlzIHNlY3VyZQ==A", "////////////////////////////////////////////",
    "__________________________________________8=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// Resources and wildcards, good and bad.
#[rustfmt::skip]
pub const RESOURCES: &[&str] = &[
    "secrets", "configmaps", "pods", "deployments.apps", "secrets",
    "pandas.awesome.bears.example", "*.", "*.apps", "*.*", "*", "Secrets", "apiserveripinfo",
    "serviceipallocations", "servicenodeportallocations", "events.events.k8s.io",
    "*.events.k8s.io", "events", "*.extensions", "ingresses.extensions", "pods.*", "pods.", "",
    ".", "a<b>&c", "\u{c4}", "\u{1e9e}", "\u{130}", "a.b.c", ".apps", "a\u{2028}b", "..",
];
