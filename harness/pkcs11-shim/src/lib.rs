//! A PKCS#11 module for tests: passes every call on to another module, and misbehaves by a script.
//!
//! SoftHSM cannot be made to lose a session, to forget a login or to hang at will; with this in front of
//! it, it can. Two files are named by the environment:
//!
//! * `PKCS11_SHIM_MODULE`: the real module.
//! * `PKCS11_SHIM_SCRIPT`: what to do, read at every call, so that a test can change it at any time.
//!   A line each: a function, then what it does: `rv=0x30` (returns that, without calling), `ms=500`
//!   (waits first), `flip` (flips a bit of what it returns), `short` (returns
//!   a byte less than there is), `flags=0x40000` (of C_GetTokenInfo: sets these, too), `skip=2` (not for the first two calls),
//!   `once` (for one call only). An example: `C_Encrypt skip=1 rv=0x30`. Calls are counted from the
//!   moment that the script was written.
//!
//! Beside the script, in `<script>.calls`, every call is written down when it begins and when it ends,
//! with its thread and session: `C_Encrypt begin thread=3 session=1`.

#![allow(non_snake_case, reason = "the names are those of the C interface")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use cryptoki_sys::*;

struct Shim {
    real: CK_FUNCTION_LIST,
    list: CK_FUNCTION_LIST,
    _library: Pkcs11,
}

static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
static CALLS: Mutex<Calls> = Mutex::new(Calls { written: None, seen: BTreeMap::new() });
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// How often each function was called since the script was written.
struct Calls {
    written: Option<SystemTime>,
    seen: BTreeMap<String, usize>,
}

/// What the script says of a function.
#[derive(Default)]
struct Order {
    rv: Option<CK_RV>,
    wait: Duration,
    flip: bool,
    short: bool,
    flags: CK_FLAGS,
}

fn script() -> Option<String> {
    std::env::var("PKCS11_SHIM_SCRIPT").ok()
}

fn order(function: &str) -> Order {
    let Some(path) = script() else { return Order::default() };
    let text = fs::read_to_string(&path).unwrap_or_default();
    let Some(line) = text.lines().find(|line| line.split_whitespace().next() == Some(function))
    else {
        return Order::default();
    };
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0),
        None => text.parse().unwrap_or(0),
    };
    let (mut order, mut skip, mut times) = (Order::default(), 0, usize::MAX);
    for word in line.split_whitespace().skip(1) {
        match word.split_once('=') {
            Some(("rv", value)) => order.rv = Some(number(value)),
            Some(("ms", value)) => order.wait = Duration::from_millis(number(value)),
            Some(("flags", value)) => order.flags = number(value),
            Some(("skip", value)) => skip = number(value) as usize,
            _ if word == "once" => times = 1,
            _ if word == "short" => order.short = true,
            _ => order.flip |= word == "flip",
        }
    }
    let written = fs::metadata(&path).ok().and_then(|file| file.modified().ok());
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    if calls.written != written {
        *calls = Calls { written, seen: BTreeMap::new() };
    }
    let seen = calls.seen.entry(function.to_owned()).or_default();
    *seen += 1;
    if *seen > skip && *seen - skip <= times { order } else { Order::default() }
}

fn note(function: &str, what: &str, session: CK_ULONG) {
    let Some(path) = script() else { return };
    let thread = THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(THREADS.fetch_add(1, Ordering::SeqCst) + 1);
        }
        thread.get()
    });
    let file = OpenOptions::new().create(true).append(true).open(format!("{path}.calls"));
    if let Ok(mut file) = file {
        let _ = file
            .write_all(format!("{function} {what} thread={thread} session={session}\n").as_bytes());
    }
}

fn call(function: &str, session: CK_ULONG, real: impl FnOnce() -> CK_RV) -> (CK_RV, Order) {
    note(function, "begin", session);
    let order = order(function);
    #[allow(clippy::disallowed_methods, reason = "to be slow is what it was told")]
    std::thread::sleep(order.wait);
    let rv = order.rv.unwrap_or_else(real);
    note(function, "end", session);
    (rv, order)
}

fn shim() -> Option<&'static Shim> {
    SHIM.get_or_init(load).as_ref()
}

/// Wraps functions whose first argument says which session or slot it is.
macro_rules! wrap {
    ($($name:ident($($arg:ident: $type:ty),*);)+) => {
        $(unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
            let Some(real) = shim().and_then(|shim| shim.real.$name) else {
                return CKR_GENERAL_ERROR;
            };
            let session = wrap!(@first $($arg),*);
            // SAFETY: the caller's arguments are passed on as they are.
            call(stringify!($name), session, || unsafe { real($($arg),*) }).0
        })+

        fn overridden(mut list: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
            $(list.$name = Some($name);)+
            list.C_Initialize = Some(C_Initialize);
            list.C_Finalize = Some(C_Finalize);
            list.C_GetTokenInfo = Some(C_GetTokenInfo);
            list.C_Encrypt = Some(C_Encrypt);
            list.C_Decrypt = Some(C_Decrypt);
            list
        }
    };
    (@first $first:ident $(, $rest:ident)*) => { $first as CK_ULONG };
}

wrap! {
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, app: *mut c_void, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_CopyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, copy: *mut CK_OBJECT_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE);
}

unsafe extern "C" fn C_Initialize(args: *mut c_void) -> CK_RV {
    let Some(real) = shim().and_then(|shim| shim.real.C_Initialize) else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller's argument is passed on as it is.
    call("C_Initialize", 0, || unsafe { real(args) }).0
}

unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    let Some(real) = shim().and_then(|shim| shim.real.C_Finalize) else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller's argument is passed on as it is.
    call("C_Finalize", 0, || unsafe { real(reserved) }).0
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let Some(real) = shim().and_then(|shim| shim.real.C_GetTokenInfo) else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller's arguments are passed on as they are.
    let (rv, order) = call("C_GetTokenInfo", slot, || unsafe { real(slot, info) });
    if rv == CKR_OK && !info.is_null() {
        // SAFETY: after CKR_OK, `info` has been written.
        unsafe { (*info).flags |= order.flags };
    }
    rv
}

/// Changes what was returned: flips a bit of its last byte, or drops that byte.
unsafe fn falsify(order: &Order, rv: CK_RV, out: *mut CK_BYTE, length: *mut CK_ULONG) {
    if rv == CKR_OK && !out.is_null() && !length.is_null() {
        // SAFETY: after CKR_OK, `out` holds `*length` bytes.
        unsafe {
            if *length > 0 && order.flip {
                *out.add(*length as usize - 1) ^= 1;
            }
            if *length > 0 && order.short {
                *length -= 1;
            }
        }
    }
}

/// Encrypts or decrypts, both of which return bytes that can be falsified.
unsafe fn crypt(
    function: &str,
    real: CK_C_Encrypt,
    (session, data, data_length): (CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG),
    (out, length): (*mut CK_BYTE, *mut CK_ULONG),
) -> CK_RV {
    let Some(real) = real else { return CKR_GENERAL_ERROR };
    // SAFETY: the caller's arguments are passed on as they are.
    let real = || unsafe { real(session, data, data_length, out, length) };
    let (rv, order) = call(function, session, real);
    // SAFETY: as `falsify` demands.
    unsafe { falsify(&order, rv, out, length) };
    rv
}

unsafe extern "C" fn C_Encrypt(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_length: CK_ULONG,
    out: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    let real = shim().and_then(|shim| shim.real.C_Encrypt);
    // SAFETY: the caller's arguments are passed on as they are.
    unsafe { crypt("C_Encrypt", real, (session, data, data_length), (out, length)) }
}

unsafe extern "C" fn C_Decrypt(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_length: CK_ULONG,
    out: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    let real = shim().and_then(|shim| shim.real.C_Decrypt);
    // SAFETY: the caller's arguments are passed on as they are.
    unsafe { crypt("C_Decrypt", real, (session, data, data_length), (out, length)) }
}

fn load() -> Option<Shim> {
    let path = std::env::var("PKCS11_SHIM_MODULE").ok()?;
    // SAFETY: the test names a PKCS#11 module.
    let library = unsafe { Pkcs11::new(&path) }.ok()?;
    if library.C_GetFunctionList.is_err() {
        return None;
    }
    let mut list = ptr::null_mut();
    // SAFETY: the symbol is there, and `list` can be written.
    let rv = unsafe { library.C_GetFunctionList(&raw mut list) };
    if rv != CKR_OK || list.is_null() {
        return None;
    }
    // SAFETY: after CKR_OK it points at the module's list.
    let real = unsafe { *list };
    Some(Shim { real, list: overridden(real), _library: library })
}

/// The module's entry point.
///
/// # Safety
///
/// `list` has to be valid for writing a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let Some(shim) = shim() else { return CKR_GENERAL_ERROR };
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: `list` is not null, and the shim lives as long as the process.
    unsafe { *list = ptr::from_ref(&shim.list).cast_mut() };
    CKR_OK
}
