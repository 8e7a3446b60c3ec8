//! Keys in the configuration.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Go's decoder: line breaks are skipped, padding has to be there, bits beyond the last byte do not matter.
const GO: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A key's bytes, or what else is written so; nothing if it is no base64.
pub(super) fn bytes(secret: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<String> = Zeroizing::new(secret.replace(['\r', '\n'], ""));
    GO.decode(text.as_bytes()).ok().map(Zeroizing::new)
}
