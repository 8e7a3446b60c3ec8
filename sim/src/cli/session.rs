//! Commands, one after another, of one apiserver.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Parser as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::args::{Command, Line};
use super::{complain, say};
use crate::go;
use crate::secret::Secret;
use crate::store::{Found, Store, Wrote};

/// Does the command, or those on standard input: whether all succeeded.
pub(super) async fn run(mut store: Store, command: Option<Command>) -> Result<bool, String> {
    if let Some(command) = command {
        return Ok(said(act(&mut store, command).await));
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (mut good, mut number) = (true, 0);
    while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
        number += 1;
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let outcome = match Line::try_parse_from(line.split_whitespace()) {
            Ok(Line { command }) => act(&mut store, command).await,
            Err(error) => Err(error.to_string()),
        };
        // Not the line itself: it may have a secret in it.
        good &= said(outcome.map_err(|error| format!("line {number}: {error}")));
    }
    Ok(good)
}

fn said(outcome: Result<(), String>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            complain(error.trim_end());
            false
        }
    }
}

async fn act(store: &mut Store, command: Command) -> Result<(), String> {
    match command {
        Command::Put { secret, data } => {
            let entries = data.into_iter().map(|entry| (entry.key, entry.value));
            let data: BTreeMap<_, _> = entries.collect();
            let wrote = store.put(&secret.namespace, &secret.name, &data).await?;
            say(&format!("{}/{}: {}", secret.namespace, secret.name, word(wrote)));
        }
        Command::Get { secret } => {
            let found = store.get(&secret.namespace, &secret.name).await?;
            let found = found.ok_or("there is no such Secret in etcd")?;
            for (key, value) in Secret::decode(&found.read?.plaintext)?.data {
                say(&entry(&key, &value));
            }
        }
        Command::List { namespace } => {
            let all = store.list(namespace.as_deref()).await?;
            let unread = all.iter().filter(|found| found.read.is_err()).count();
            for found in &all {
                say(&line(found));
            }
            if unread > 0 {
                return Err(format!("{unread} of {} cannot be read", all.len()));
            }
        }
        Command::Rewrite { namespace } => rewrite(store, namespace.as_deref()).await?,
        Command::Health => {
            store.apiserver.health().await?;
            say("ok");
        }
        Command::Wait { time } => tokio::time::sleep(time).await,
    }
    Ok(())
}

async fn rewrite(store: &mut Store, namespace: Option<&str>) -> Result<(), String> {
    let all = store.list(namespace).await?;
    let (mut moved, mut failed) = (0, 0);
    for found in &all {
        match store.rewrite(&found.key).await {
            Ok(Wrote::Unchanged) => {}
            Ok(Wrote::Created | Wrote::Updated) => moved += 1,
            Err(error) => {
                failed += 1;
                complain(&format!("{}: {error}", found.key));
            }
        }
    }
    let fresh = all.len() - moved - failed;
    say(&format!("{moved} rewritten, {fresh} were not stale"));
    if failed > 0 {
        Err(format!("{failed} of {} could not be rewritten", all.len()))
    } else {
        Ok(())
    }
}

fn word(wrote: Wrote) -> &'static str {
    match wrote {
        Wrote::Created => "created",
        Wrote::Updated => "updated",
        Wrote::Unchanged => "unchanged",
    }
}

/// One entry of a Secret, in one line that no value can make look like another.
fn entry(key: &str, value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.chars().all(go::is_printable) => format!("{}={text}", shown(key)),
        _ => format!("{}:base64={}", shown(key), STANDARD.encode(value)),
    }
}

/// Text as it is, or in quotes if it would not stay in its place.
fn shown(text: &str) -> Cow<'_, str> {
    if text.chars().all(go::is_printable) { text.into() } else { go::quoted(text).into() }
}

/// One Secret in a list.
fn line(found: &Found) -> String {
    let how = match &found.key_id {
        Some(key_id) => format!("key_id {}", shown(key_id)),
        None => "no plugin".to_owned(),
    };
    let state = match &found.read {
        Ok(read) if read.stale => "stale".to_owned(),
        Ok(_) => "fresh".to_owned(),
        Err(error) => format!("CANNOT BE READ: {error}"),
    };
    format!("{}  {} bytes  {how}  {state}", shown(&found.key), found.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_line_and_can_be_put_again() {
        for (value, says) in [
            (&b"hunter2"[..], "a=hunter2"),
            ("é = 1".as_bytes(), "a=é = 1"),
            (b"", "a="),
            (b"x\nb=2", "a:base64=eApiPTI="),
            (b"\x1b[2J", "a:base64=G1sySg=="),
            (b"\xff\xfe", "a:base64=//4="),
        ] {
            assert_eq!(entry("a", value), says);
            let again: super::super::args::Entry = says.parse().unwrap();
            assert_eq!(again.value, value);
        }
        assert_eq!(shown("1\nx"), "\"1\\nx\"");
    }
}
