//! A SoftHSM token of the test's own, made with SoftHSM's own tool and not with the plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Stage, components, write_private};

/// A SoftHSM installation with its own configuration and token directory.
#[derive(Debug, Clone)]
pub struct SoftHsm {
    module: PathBuf,
    util: PathBuf,
    directory: PathBuf,
    token_label: String,
}

impl SoftHsm {
    /// The user PIN of every token: unlike anything else that is in a log, so that it can be looked
    /// for.
    pub const PIN: &'static str = "pin-7f3e-canary-91c2";

    /// The security officer's PIN.
    pub const SO_PIN: &'static str = "so-pin-5d08-canary-44ab";

    /// An empty token directory; `None` if there is no SoftHSM.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn empty(stage: &Stage, name: &str) -> Option<Self> {
        let (module, util) = (components::softhsm_module()?, components::softhsm_util()?);
        let directory = stage.make_dir(name);
        let hsm = Self { module, util, directory, token_label: "kleidi".to_owned() };
        fs::create_dir_all(hsm.tokens()).expect("a token directory");
        hsm.write_configuration();
        Some(hsm)
    }

    /// An initialised token without a key.
    #[must_use]
    pub fn with_token(stage: &Stage, name: &str) -> Option<Self> {
        let hsm = Self::empty(stage, name)?;
        hsm.init_token();
        hsm.write_pin(Self::PIN);
        Some(hsm)
    }

    /// An initialised token with one key, which is random.
    #[must_use]
    pub fn with_key(stage: &Stage, name: &str, label: &str, id: u8) -> Option<Self> {
        let hsm = Self::with_token(stage, name)?;
        hsm.add_key(label, id, &random_key());
        Some(hsm)
    }

    /// The same token once more, in another directory: another node of a cluster.
    ///
    /// # Panics
    ///
    /// If it cannot be copied.
    #[must_use]
    pub fn copy(&self, stage: &Stage, name: &str) -> Self {
        let copy = Self { directory: stage.make_dir(name), ..self.clone() };
        copy_tree(&self.tokens(), &copy.tokens());
        fs::copy(self.pin_file(), copy.pin_file()).expect("the PIN can be copied");
        copy.write_configuration();
        copy
    }

    /// Makes the token.
    pub fn init_token(&self) {
        self.util(
            &["--init-token", "--free", "--label", &self.token_label]
                .iter()
                .chain(&["--pin", Self::PIN, "--so-pin", Self::SO_PIN])
                .copied()
                .collect::<Vec<_>>(),
        );
    }

    /// Adds a key with this value to the token.
    ///
    /// # Panics
    ///
    /// If SoftHSM's tool refuses.
    pub fn add_key(&self, label: &str, id: u8, key: &[u8; 32]) {
        let file = self.directory.join("key.bin");
        fs::write(&file, key).expect("the key file can be written");
        let (path, id) = (file.display().to_string(), format!("{id:02x}"));
        self.util(&[
            "--import",
            &path,
            "--aes",
            "--token",
            &self.token_label,
            "--label",
            label,
            "--id",
            &id,
            "--pin",
            Self::PIN,
        ]);
        fs::remove_file(file).expect("the key file can be removed");
    }

    /// Makes, changes or deletes keys with the tool [`crate::built::p11`]; `args` from its command on.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn p11(&self, args: &[&str]) {
        let mut command = Command::new(crate::built::p11());
        command.arg(&self.module).args([&self.token_label, Self::PIN]).args(args);
        self.run(&mut command);
    }

    /// Makes a token that has a security officer and no user yet, as a creation that was cut off leaves it.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn init_without_user(&self, so_pin: &str) {
        let mut command = Command::new(crate::built::p11());
        command.arg(&self.module).args([&self.token_label, so_pin, "blank"]);
        self.run(&mut command);
    }

    /// What the bare module takes for an AES-GCM encrypt and decrypt of 32 bytes, in nanoseconds.
    ///
    /// # Panics
    ///
    /// If it cannot be measured.
    #[must_use]
    pub fn time(&self, label: &str, id: &str) -> (f64, f64) {
        let mut command = Command::new(crate::built::p11());
        command.arg(&self.module).args([&self.token_label, Self::PIN, "time", label, id]);
        let output = self.run(&mut command);
        let mut numbers = output.split_whitespace().map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Changes the PIN in the file, not that of the token.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write_pin(&self, pin: &str) {
        write_private(&self.pin_file(), pin);
    }

    /// The file that `SOFTHSM2_CONF` has to name.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.join("softhsm2.conf")
    }

    /// Where SoftHSM keeps the tokens.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    /// The file that holds the user PIN.
    #[must_use]
    pub fn pin_file(&self) -> PathBuf {
        self.directory.join("pin")
    }

    /// The module.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// The token's label.
    #[must_use]
    pub fn token_label(&self) -> &str {
        &self.token_label
    }

    /// Takes the token directory away.
    ///
    /// # Panics
    ///
    /// If it cannot be moved.
    pub fn take_away(&self) {
        fs::rename(self.tokens(), self.directory.join("away")).expect("the tokens can be moved");
    }

    /// Puts the token directory back.
    ///
    /// # Panics
    ///
    /// If it cannot be moved.
    pub fn bring_back(&self) {
        fs::rename(self.directory.join("away"), self.tokens()).expect("the tokens can be moved");
    }

    /// The files of the objects on the token, keys among them.
    #[must_use]
    pub fn object_files(&self) -> Vec<PathBuf> {
        let token = fs::read_dir(self.tokens()).into_iter().flatten().flatten();
        let files = token.flat_map(|token| fs::read_dir(token.path()).into_iter().flatten());
        let paths = files.flatten().map(|entry| entry.path());
        paths
            .filter(|path| {
                path.extension().is_some_and(|extension| extension == "object")
                    && path.file_name().is_some_and(|name| name != "token.object")
            })
            .collect()
    }

    /// Runs `softhsm2-util`.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn util(&self, args: &[&str]) {
        self.run(Command::new(&self.util).args(args));
    }

    fn run(&self, command: &mut Command) -> String {
        command.env("SOFTHSM2_CONF", self.configuration());
        let output = command.output().expect("a tool of SoftHSM's can be run");
        assert!(
            output.status.success(),
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn write_configuration(&self) {
        let tokens = self.tokens();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(self.configuration(), text).expect("softhsm2.conf can be written");
    }
}

/// 32 random bytes, none of them NUL or a newline: there `softhsm2-util --import` (2.6.1) cuts a key
/// off and makes a shorter one of it, without a word.
///
/// # Panics
///
/// If there are none.
#[must_use]
pub fn random_key() -> [u8; 32] {
    use std::io::Read as _;
    let mut key = [0; 32];
    let mut random = fs::File::open("/dev/urandom").expect("random bytes");
    for byte in &mut key {
        while matches!(*byte, b'\0' | b'\n' | b'\r') {
            random.read_exact(std::slice::from_mut(byte)).expect("random bytes");
        }
    }
    key
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
