//! The record's protobuf, read as upstream's libraries read it: gogo's (`proto/table_unmarshal.go`) before
//! 1.34, Google's (`internal/impl/decode.go`, `encoding/protowire/wire.go`) since.
//!
//! Of one field that is there several times the last counts. A known field of another wire type is an unknown
//! one, and unknown ones are passed over. The two differ in what they find broken beyond repair.

use kleidi_proto::encryption::EncryptedObject;

/// Wire types, by their numbers.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// Most groups in one another for Google's library: its limit of 10000, counted from 0 to -1.
const GROUPS_MAX: usize = 10_001;

/// Largest number of a field for Google's library.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// Whose library reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `github.com/gogo/protobuf`, until 1.33: large numbers of fields, ends of groups that match no beginning;
    /// but annotations have to have their wire type.
    Gogo,
    /// `google.golang.org/protobuf`, since 1.34.
    Google,
}

/// Reads a record; the error is in words of ours.
pub(super) fn decode(record: &[u8], library: Library) -> Result<EncryptedObject, &'static str> {
    let mut object = EncryptedObject::default();
    let mut rest = Rest { bytes: record, library };
    while !rest.bytes.is_empty() {
        match rest.key()? {
            (1, BYTES) => object.encrypted_data = rest.counted()?.to_vec(),
            (2, BYTES) => object.key_id = rest.text()?,
            (3, BYTES) => object.encrypted_dek_source = rest.counted()?.to_vec(),
            (4, BYTES) => {
                let (name, value) = annotation(rest.counted()?, library)?;
                object.annotations.insert(name, value);
            }
            (4, _) if library == Library::Gogo => return Err("bad wire type for map field"),
            // Google's library refuses 0 anywhere; gogo's, not within an annotation.
            (0, _) => return Err("illegal tag 0"),
            (5, VARINT) => object.encrypted_dek_source_type = enumeration(rest.varint()?),
            (number, wire) => rest.skip(number, wire)?,
        }
    }
    Ok(object)
}

fn annotation(entry: &[u8], library: Library) -> Result<(String, Vec<u8>), &'static str> {
    let (mut name, mut value) = (String::new(), Vec::new());
    let mut rest = Rest { bytes: entry, library };
    while !rest.bytes.is_empty() {
        match rest.key()? {
            (1, BYTES) => name = rest.text()?,
            (2, BYTES) => value = rest.counted()?.to_vec(),
            (number, wire) => rest.skip(number, wire)?,
        }
    }
    Ok((name, value))
}

/// The lower 32 bits, with their sign, as Go converts.
#[allow(clippy::cast_possible_truncation, reason = "so does Go")]
fn enumeration(value: u64) -> i32 {
    (value as u32).cast_signed()
}

/// What has not been read yet.
struct Rest<'a> {
    bytes: &'a [u8],
    library: Library,
}

impl<'a> Rest<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], &'static str> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("unexpected EOF")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Of up to ten bytes and 64 bits.
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.take(1)?[0]);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("variable length integer overflow")
    }

    fn counted(&mut self) -> Result<&'a [u8], &'static str> {
        let count = self.varint()?;
        self.take(count)
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let bytes = self.counted()?.to_vec();
        String::from_utf8(bytes).map_err(|_| "invalid UTF-8")
    }

    /// A field's number and wire type.
    fn key(&mut self) -> Result<(u64, u8), &'static str> {
        let (number, wire) = self.any_key()?;
        if self.library == Library::Google && !(1..=NUMBER_MAX).contains(&number) {
            return Err("invalid field number");
        }
        Ok((number, wire))
    }

    fn any_key(&mut self) -> Result<(u64, u8), &'static str> {
        let key = self.varint()?;
        Ok((key >> 3, u8::try_from(key & 7).unwrap_or_default()))
    }

    fn skip(&mut self, number: u64, wire: u8) -> Result<(), &'static str> {
        match wire {
            GROUP => self.skip_group(number),
            GROUP_END => Err("mismatching end group marker"),
            _ => self.skip_plain(wire),
        }
    }

    fn skip_plain(&mut self, wire: u8) -> Result<(), &'static str> {
        match wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            BYTES => self.counted().map(drop),
            FIXED32 => self.take(4).map(drop),
            _ => Err("cannot parse reserved wire type"),
        }
    }

    /// To the end of a group, with all that are in it.
    fn skip_group(&mut self, number: u64) -> Result<(), &'static str> {
        let google = self.library == Library::Google;
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            let (number, wire) = self.any_key()?;
            if google && !(1..=0x7fff_ffff).contains(&number) {
                return Err("invalid field number");
            }
            match wire {
                GROUP if google && open.len() == GROUPS_MAX => {
                    return Err("exceeded maximum recursion depth");
                }
                GROUP => open.push(number),
                GROUP_END if google && number != *innermost => {
                    return Err("mismatching end group marker");
                }
                GROUP_END => drop(open.pop()),
                _ => self.skip_plain(wire)?,
            }
        }
        Ok(())
    }
}
