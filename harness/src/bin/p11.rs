//! Makes, changes and deletes keys on a token, for tests: what an operator could do with other tools.
//!
//! ```text
//! p11 MODULE TOKEN PIN generate LABEL ID [weak]
//! p11 MODULE TOKEN PIN import LABEL ID HEX
//! p11 MODULE TOKEN PIN set LABEL ID encrypt=false
//! p11 MODULE TOKEN PIN set LABEL ID id=HEX
//! p11 MODULE TOKEN PIN delete LABEL ID
//! ```

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [module, token, pin, rest @ ..] = &args[..] else { return Err("see the source".into()) };
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
                Some(("id", id)) => Attribute::Id(hex(id)?),
                _ => return Err("encrypt=true, encrypt=false or id=HEX".into()),
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
        _ => Err("see the source".into()),
    }
}

fn open(module: &str, token: &str, pin: &str) -> Outcome<Session> {
    let context = Pkcs11::new(module)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
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

fn find(session: &Session, label: &str, id: &str) -> Outcome<Vec<cryptoki::object::ObjectHandle>> {
    let label = Attribute::Label(label.as_bytes().to_vec());
    let found = session.find_objects(&[label, Attribute::Id(hex(id)?)])?;
    if found.is_empty() { Err("no such key".into()) } else { Ok(found) }
}

fn hex(text: &str) -> Outcome<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
