//! `kleidi init`: creates what is missing, or says how an administrator does.

use std::sync::Arc;

use super::{Exit, InitArgs, complain, say};
use crate::backend::Backend;
use crate::backend::pkcs11::{PinSource, Pkcs11, create};
use crate::backend::transit::provisioning;
use crate::config::{Config, Kms, Overrides};
use crate::limits;
use crate::random::OsRandom;

/// Name of the security officer's PIN file, beside the user's.
const SO_PIN_FILE: &str = "so-pin";

pub(super) fn run(args: &InitArgs) -> Exit {
    let config = match Config::load(args.config.config.as_deref(), &Overrides::default()) {
        Ok(config) => config,
        Err(error) => return complain(&error, Exit::Config),
    };
    let mut settings = match config.kms {
        Kms::Transit(settings) if args.print_policy => {
            return say(provisioning::script(&settings).trim_end());
        }
        Kms::Pkcs11(_) if args.print_policy => {
            return complain(
                &"--print-policy is for transit; PKCS#11 has no policies",
                Exit::Usage,
            );
        }
        Kms::Transit(_) => {
            let why = "cannot make a transit key: kleidi has no right to; an administrator runs what \
                       kleidi init --print-policy prints";
            return complain(&why, Exit::Config);
        }
        Kms::Pkcs11(settings) => settings,
    };
    for warning in &config.remarks.warnings {
        say(&format!("warning: {warning}"));
    }
    let beside = match &settings.pin {
        PinSource::File(file) | PinSource::LegacyJson(file) => file.with_file_name(SO_PIN_FILE),
    };
    let options = create::Options {
        so_pin_file: args.so_pin_file.clone().unwrap_or(beside),
        cka_id: args.cka_id.clone().map(|id| id.0),
    };
    let report = match create::create(&settings, &options, &(Arc::new(OsRandom) as _)) {
        Ok(report) => report,
        Err(error) => return complain(&error, Exit::from(&error)),
    };
    let made = |made| if made { "created" } else { "was there" };
    say(&format!("token     {}: {}", made(report.token_created), report.token));
    say(&format!("user PIN  {}: {}", made(report.pin_created), settings.pin));
    if report.token_created {
        let file = options.so_pin_file.display();
        say(&format!("SO PIN    in {file}: keep it elsewhere; the plugin has no use for it"));
    }
    // What the plugin would say of this key, by the plugin's own way of looking.
    if options.cka_id.is_some() {
        settings.key.id = options.cka_id;
    }
    let key = settings.key.clone();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let observed = Pkcs11::new(settings, Arc::new(OsRandom)).and_then(|backend| {
        runtime.block_on(async {
            backend.observe(tokio::time::Instant::now() + limits::OBSERVE_TIMEOUT).await
        })
    });
    match observed {
        Ok(keys) => {
            say(&format!("key       {}: {}", made(report.key_created), keys.current.name));
            say(&format!("key_id    {}", keys.current.id))
        }
        Err(error) => {
            say(&format!("key       {}: {key}", made(report.key_created)));
            complain(&error, Exit::from(&error))
        }
    }
}
