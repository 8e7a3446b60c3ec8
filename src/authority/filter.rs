//! The byte machine: finds `:authority` literals in an HTTP/2 byte stream and overwrites them.

/// Bytes of the connection preface that every HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `localhost` as a string literal of HPACK, Huffman-coded and raw, length byte included. This is
/// all that kube-apiserver 1.32 and later ever send.
const LOCALHOST: [&[u8]; 2] = [b"\x86\xa0\xe4\x1d\x13\x9d\x09", b"\x09localhost"];

/// The most that [`AuthorityFilter::apply`] ever asks to be held back.
pub const HELD_BYTES_MAX: usize = 10;

/// What every other value is overwritten with, byte for byte: a legal host name of any length.
const FILLER: u8 = b'a';

/// Largest integer that is followed; a client has no use for more (frames end at 2^24).
const INTEGER_MAX: u32 = 1 << 24;

mod frame {
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const CONTINUATION: u8 = 0x9;
    pub(super) const FLAG_END_HEADERS: u8 = 0x4;
    pub(super) const FLAG_PADDED: u8 = 0x8;
    pub(super) const FLAG_PRIORITY: u8 = 0x20;
    pub(super) const HEADER_BYTES: usize = 9;
    pub(super) const PRIORITY_BYTES: u32 = 5;
}

/// Name index of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY_INDEX: u32 = 1;

/// See the [module above](super) for what it does and why that is sound.
#[derive(Debug)]
pub struct AuthorityFilter {
    stage: Stage,
    /// Where the walk of the open header block is; a block can span frames.
    token: Token,
    /// A header block is open: only CONTINUATION may come.
    block_open: bool,
}

/// Where in the stream of frames the next byte is.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// In the preface, this many bytes of it seen.
    Preface(usize),
    /// In a frame header, this many bytes of it seen.
    FrameHeader(usize, [u8; frame::HEADER_BYTES]),
    /// At the byte of a HEADERS frame that says how much padding there is.
    PadLength { payload: u32, priority: u32, end: bool },
    /// In the priority fields of a HEADERS frame.
    Priority { left: u32, fragment: u32, padding: u32, end: bool },
    /// In a piece of a header block.
    Fragment { left: u32, padding: u32, end: bool },
    /// In bytes that are of no interest: other frames, padding.
    Skip(u32),
    /// Something was malformed: everything goes through untouched, for h2 to refuse.
    Raw,
}

/// Where in a header block the next byte is.
#[derive(Debug, Clone, Copy)]
enum Token {
    /// At the first byte of a field or of a table size update.
    Start,
    /// In an integer of more than one byte.
    Integer { what: Integer, value: u32, shift: u32 },
    /// At the length byte of a string.
    Length(Text),
    /// In the bytes of a string.
    Text { what: Text, left: u32 },
}

#[derive(Debug, Clone, Copy)]
enum Integer {
    /// An index into the tables, or a table size: nothing follows.
    Alone,
    /// The name index of a literal: the value follows, and first the name if the index is 0.
    NameIndex,
    /// The length of a string.
    Length(Text),
}

#[derive(Debug, Clone, Copy)]
enum Text {
    Name,
    Value,
    /// The value of `:authority`.
    Authority,
}

/// The input is not HTTP/2 as it should be.
struct Malformed;

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self { stage: Stage::Preface(0), token: Token::Start, block_open: false }
    }
}

impl AuthorityFilter {
    /// Overwrites in place what has to be overwritten in the next bytes of the stream.
    ///
    /// Returns how many of them are final. The rest, at most [`HELD_BYTES_MAX`] bytes, is a value
    /// that may yet turn out to be `localhost`: give those bytes again, with more behind them.
    pub fn apply(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&mut bytes[at..]) {
                Ok(0) => break,
                Ok(taken) => at += taken,
                Err(Malformed) => self.stage = Stage::Raw,
            }
        }
        at
    }

    /// Takes at least one byte, or none to ask for more.
    fn step(&mut self, bytes: &mut [u8]) -> Result<usize, Malformed> {
        match self.stage {
            Stage::Raw => Ok(bytes.len()),
            Stage::Skip(left) => {
                let taken = fit(bytes, left);
                self.skip(left - count(taken));
                Ok(taken)
            }
            Stage::Preface(seen) => {
                if bytes[0] != PREFACE[seen] {
                    return Err(Malformed);
                }
                self.stage = match seen + 1 {
                    PREFACE_END => Stage::FrameHeader(0, [0; 9]),
                    seen => Stage::Preface(seen),
                };
                Ok(1)
            }
            Stage::FrameHeader(seen, mut header) => {
                header[seen] = bytes[0];
                if seen + 1 < frame::HEADER_BYTES {
                    self.stage = Stage::FrameHeader(seen + 1, header);
                } else {
                    self.begin_frame(&header)?;
                }
                Ok(1)
            }
            Stage::PadLength { payload, priority, end } => {
                let padding = u32::from(bytes[0]);
                let fragment = payload.checked_sub(1 + priority + padding).ok_or(Malformed)?;
                self.begin_fragment(priority, fragment, padding, end)?;
                Ok(1)
            }
            Stage::Priority { left, fragment, padding, end } => {
                let taken = fit(bytes, left);
                self.begin_fragment(left - count(taken), fragment, padding, end)?;
                Ok(taken)
            }
            Stage::Fragment { left, padding, end } => {
                let taken = self.walk(left, bytes)?;
                self.begin_fragment(0, left - count(taken), padding, end)?;
                Ok(taken)
            }
        }
    }

    fn skip(&mut self, left: u32) {
        self.stage = match left {
            0 => Stage::FrameHeader(0, [0; 9]),
            left => Stage::Skip(left),
        };
    }

    fn begin_frame(&mut self, header: &[u8; frame::HEADER_BYTES]) -> Result<(), Malformed> {
        let payload = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let (kind, flags) = (header[3], header[4]);
        let end = flags & frame::FLAG_END_HEADERS != 0;
        match (kind, self.block_open) {
            (frame::CONTINUATION, true) => self.begin_fragment(0, payload, 0, end),
            (frame::HEADERS, false) => {
                self.block_open = true;
                let priority =
                    if flags & frame::FLAG_PRIORITY == 0 { 0 } else { frame::PRIORITY_BYTES };
                if flags & frame::FLAG_PADDED != 0 {
                    // An empty payload has no pad length to read.
                    (payload > 0).then_some(()).ok_or(Malformed)?;
                    self.stage = Stage::PadLength { payload, priority, end };
                    return Ok(());
                }
                let fragment = payload.checked_sub(priority).ok_or(Malformed)?;
                self.begin_fragment(priority, fragment, 0, end)
            }
            (frame::HEADERS | frame::CONTINUATION, _) | (_, true) => Err(Malformed),
            (_, false) => {
                self.skip(payload);
                Ok(())
            }
        }
    }

    /// Goes on with whatever is left of a HEADERS or CONTINUATION frame.
    fn begin_fragment(
        &mut self,
        priority: u32,
        fragment: u32,
        padding: u32,
        end: bool,
    ) -> Result<(), Malformed> {
        if priority > 0 {
            self.stage = Stage::Priority { left: priority, fragment, padding, end };
        } else if fragment > 0 {
            self.stage = Stage::Fragment { left: fragment, padding, end };
        } else {
            if end {
                // A block ends between fields, or it is malformed.
                matches!(self.token, Token::Start).then_some(()).ok_or(Malformed)?;
                self.block_open = false;
            }
            self.skip(padding);
        }
        Ok(())
    }

    /// Walks the header block, of which `left` bytes are in this frame.
    fn walk(&mut self, left: u32, bytes: &mut [u8]) -> Result<usize, Malformed> {
        match self.token {
            Token::Start => {
                self.begin_field(bytes[0])?;
                Ok(1)
            }
            Token::Integer { what, value, shift } => {
                let value = value + (u32::from(bytes[0] & 0x7f) << shift);
                if value > INTEGER_MAX {
                    return Err(Malformed);
                }
                if bytes[0] & 0x80 == 0 {
                    self.end_integer(what, value);
                } else if shift < 21 {
                    self.token = Token::Integer { what, value, shift: shift + 7 };
                } else {
                    return Err(Malformed);
                }
                Ok(1)
            }
            Token::Length(what @ Text::Authority) => {
                match localhost(bytes, left) {
                    Localhost::Yes(length) => {
                        self.token = Token::Start;
                        return Ok(length);
                    }
                    Localhost::NeedsMore => return Ok(0),
                    Localhost::No => {}
                }
                // From here on a raw string: the bytes that follow are overwritten.
                bytes[0] &= 0x7f;
                self.begin_integer(Integer::Length(what), bytes[0], 0x7f);
                Ok(1)
            }
            Token::Length(what) => {
                self.begin_integer(Integer::Length(what), bytes[0], 0x7f);
                Ok(1)
            }
            Token::Text { what, left: text_left } => {
                let taken = fit(bytes, text_left.min(left));
                if matches!(what, Text::Authority) {
                    bytes[..taken].fill(FILLER);
                }
                self.continue_text(what, text_left - count(taken));
                Ok(taken)
            }
        }
    }

    /// Reads the first byte of a field or of a table size update (RFC 7541, section 6).
    fn begin_field(&mut self, byte: u8) -> Result<(), Malformed> {
        match byte {
            // Indexed field; index 0 is an error.
            0x80 => return Err(Malformed),
            0x81.. => self.begin_integer(Integer::Alone, byte, 0x7f),
            // Literal with incremental indexing.
            0x40..0x80 => self.begin_integer(Integer::NameIndex, byte, 0x3f),
            // Table size update.
            0x20..0x40 => self.begin_integer(Integer::Alone, byte, 0x1f),
            // Literal without indexing, or never indexed.
            0x00..0x20 => self.begin_integer(Integer::NameIndex, byte, 0x0f),
        }
        Ok(())
    }

    /// Reads an integer's first byte, of which `mask` are its bits (RFC 7541, 5.1).
    fn begin_integer(&mut self, what: Integer, byte: u8, mask: u8) {
        let value = u32::from(byte & mask);
        if value < u32::from(mask) {
            self.end_integer(what, value);
        } else {
            self.token = Token::Integer { what, value, shift: 0 };
        }
    }

    fn end_integer(&mut self, what: Integer, value: u32) {
        self.token = match (what, value) {
            (Integer::Alone, _) => Token::Start,
            (Integer::NameIndex, 0) => Token::Length(Text::Name),
            (Integer::NameIndex, AUTHORITY_INDEX) => Token::Length(Text::Authority),
            (Integer::NameIndex, _) => Token::Length(Text::Value),
            (Integer::Length(text), length) => return self.continue_text(text, length),
        };
    }

    fn continue_text(&mut self, what: Text, left: u32) {
        self.token = match (what, left) {
            (Text::Name, 0) => Token::Length(Text::Value),
            (Text::Value | Text::Authority, 0) => Token::Start,
            _ => Token::Text { what, left },
        };
    }
}

const PREFACE_END: usize = PREFACE.len();

enum Localhost {
    /// Exactly `localhost`, in this many bytes.
    Yes(usize),
    No,
    /// It is so far, but `bytes` ends before it can be told.
    NeedsMore,
}

/// Whether the string that begins here, length byte first, is `localhost`. A string that goes on in
/// another frame (`fragment_left`) is taken for another: whether it is rewritten must not hang on
/// how the bytes arrive, and nobody sends that.
fn localhost(bytes: &[u8], fragment_left: u32) -> Localhost {
    for form in LOCALHOST {
        if count(form.len()) > fragment_left {
            continue;
        }
        if bytes.starts_with(form) {
            return Localhost::Yes(form.len());
        }
        if form.starts_with(bytes) {
            return Localhost::NeedsMore;
        }
    }
    Localhost::No
}

/// How many of `bytes` belong to what has `left` bytes left.
fn fit(bytes: &[u8], left: u32) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

/// A count of bytes that [`fit`] has bounded, or a constant's.
fn count(taken: usize) -> u32 {
    u32::try_from(taken).unwrap_or(u32::MAX)
}
