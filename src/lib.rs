pub mod authority;
pub mod key_id;
pub mod random;
pub mod secret;
