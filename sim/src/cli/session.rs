//! Commands, one after another, of one apiserver.

use std::collections::BTreeMap;

use clap::Parser as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::args::{Command, Line};
use super::{complain, say};
use crate::secret::Secret;
use crate::store::{Found, Store, Wrote};

/// Does the command, or those on standard input: whether all succeeded.
pub(super) async fn run(mut store: Store, command: Option<Command>) -> Result<bool, String> {
    if let Some(command) = command {
        return Ok(said(act(&mut store, command).await));
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut good = true;
    while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match Line::try_parse_from(line.split_whitespace()) {
            Ok(Line { command }) => good &= said(act(&mut store, command).await),
            Err(error) => good &= said(Err(error.to_string())),
        }
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
            let entries = data.into_iter().map(|entry| (entry.key, entry.value.into_bytes()));
            let data: BTreeMap<_, _> = entries.collect();
            let wrote = store.put(&secret.namespace, &secret.name, &data).await?;
            say(&format!("{}/{}: {}", secret.namespace, secret.name, word(wrote)));
        }
        Command::Get { secret } => {
            let found = store.get(&secret.namespace, &secret.name).await?;
            let found = found.ok_or("there is no such Secret in etcd")?;
            for (key, value) in Secret::decode(&found.read?.plaintext)?.data {
                say(&format!("{key}={}", String::from_utf8_lossy(&value)));
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

/// One Secret in a list.
fn line(found: &Found) -> String {
    let how = match &found.key_id {
        Some(key_id) => format!("key_id {key_id}"),
        None => "no plugin".to_owned(),
    };
    let state = match &found.read {
        Ok(read) if read.stale => "stale".to_owned(),
        Ok(_) => "fresh".to_owned(),
        Err(error) => format!("CANNOT BE READ: {error}"),
    };
    format!("{}  {} bytes  {how}  {state}", found.key, found.bytes)
}
