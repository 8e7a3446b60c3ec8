//! Makes, changes and deletes keys on a token, for tests: what an operator could do with other tools.
//!
//! ```text
//! p11 MODULE TOKEN SO_PIN blank               makes a token that has no user yet
//! p11 MODULE TOKEN PIN generate LABEL ID [weak]
//! p11 MODULE TOKEN PIN import LABEL ID HEX
//! p11 MODULE TOKEN PIN set LABEL ID encrypt=false
//! p11 MODULE TOKEN PIN set LABEL ID decrypt=false
//! p11 MODULE TOKEN PIN set LABEL ID id=HEX
//! p11 MODULE TOKEN PIN delete LABEL ID
//! p11 MODULE TOKEN PIN time LABEL ID          prints nanoseconds of an AES-GCM encrypt and decrypt
//! ```

use std::io::Write as _;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [module, token, pin, rest @ ..] = &args[..] else { return Err("see the source".into()) };
    if rest == ["blank"] {
        return blank(module, token, pin);
    }
    let session = open(module, token, pin)?;
    match rest {
        ["generate", label, id] => generate(&session, label, id, false),
        ["generate", label, id, "weak"] => generate(&session, label, id, true),
        ["import", label, id, value] => {
            let mut template = template(label, id, false)?;
            template.push(Attribute::KeyType(KeyType::AES));
            template.push(Attribute::Value(hex(value)?));
            session.create_object(&template)?;
            Ok(())
        }
        ["set", label, id, change] => {
            let attribute = match change.split_once('=') {
                Some(("encrypt", flag)) => Attribute::Encrypt(flag == "true"),
                Some(("decrypt", flag)) => Attribute::Decrypt(flag == "true"),
                Some(("id", id)) => Attribute::Id(hex(id)?),
                _ => return Err("encrypt=true, decrypt=false and the like, or id=HEX".into()),
            };
            for key in find(&session, label, id)? {
                session.update_attributes(key, std::slice::from_ref(&attribute))?;
            }
            Ok(())
        }
        ["delete", label, id] => {
            for key in find(&session, label, id)? {
                session.destroy_object(key)?;
            }
            Ok(())
        }
        ["time", label, id] => time(&session, find(&session, label, id)?[0]),
        _ => Err("see the source".into()),
    }
}

/// Times C_EncryptInit + C_Encrypt and the same for decrypting, of 32 bytes, in a tight loop.
fn time(session: &Session, key: ObjectHandle) -> Outcome<()> {
    const ROUNDS: u32 = 1000;
    // As long as the plugin's.
    const AAD: &[u8] = &[7; 60];
    let plaintext = [7; 32];
    let mut iv = [7; 12];
    let mut sealed = Vec::new();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, AAD, 128.into())?);
        sealed = session.encrypt(&mechanism, key, &plaintext)?;
    }
    let encrypt = begin.elapsed() / ROUNDS;
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        let mechanism = Mechanism::AesGcm(GcmParams::new(&mut iv, AAD, 128.into())?);
        session.decrypt(&mechanism, key, &sealed)?;
    }
    let decrypt = begin.elapsed() / ROUNDS;
    writeln!(std::io::stdout(), "{} {}", encrypt.as_nanos(), decrypt.as_nanos())?;
    Ok(())
}

fn load(module: &str) -> Outcome<Pkcs11> {
    let context = Pkcs11::new(module)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    Ok(context)
}

/// What remains of a creation that was cut off before there was a user.
fn blank(module: &str, token: &str, so_pin: &str) -> Outcome<()> {
    let context = load(module)?;
    for slot in context.get_slots_with_token()? {
        if !context.get_token_info(slot)?.token_initialized() {
            context.init_token(slot, &AuthPin::from(so_pin.to_owned()), token)?;
            return Ok(());
        }
    }
    Err("no free slot".into())
}

fn open(module: &str, token: &str, pin: &str) -> Outcome<Session> {
    let context = load(module)?;
    for slot in context.get_slots_with_token()? {
        if context.get_token_info(slot)?.label() == token {
            let session = context.open_rw_session(slot)?;
            session.login(UserType::User, Some(&AuthPin::from(pin.to_owned())))?;
            return Ok(session);
        }
    }
    Err("no such token".into())
}

fn template(label: &str, id: &str, weak: bool) -> Outcome<Vec<Attribute>> {
    Ok(vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(hex(id)?),
        Attribute::Token(true),
        Attribute::Private(!weak),
        Attribute::Sensitive(!weak),
        Attribute::Extractable(weak),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ])
}

fn generate(session: &Session, label: &str, id: &str, weak: bool) -> Outcome<()> {
    let mut template = template(label, id, weak)?;
    template.push(Attribute::ValueLen(32.into()));
    session.generate_key(&Mechanism::AesKeyGen, &template)?;
    Ok(())
}

fn find(session: &Session, label: &str, id: &str) -> Outcome<Vec<ObjectHandle>> {
    let label = Attribute::Label(label.as_bytes().to_vec());
    let found = session.find_objects(&[label, Attribute::Id(hex(id)?)])?;
    if found.is_empty() { Err("no such key".into()) } else { Ok(found) }
}

fn hex(text: &str) -> Outcome<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
