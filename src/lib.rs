//! kleidi, a KMS v2 plugin for kube-apiserver.
//!
//! kube-apiserver encrypts each object with a key derived from a *seed*, and hands the seed to a
//! plugin to be wrapped with a *key-encryption key* (KEK). It stores the wrapped seed, the plugin's
//! `key_id` and its annotations beside every object in etcd, and asks the plugin to unwrap a seed
//! that it does not have in memory. This crate is such a plugin: library and daemon.
//!
//! # One call, from the socket to the key
//!
//! ```text
//!  kube-apiserver
//!      │  gRPC on a Unix socket
//!      ▼
//!  socket ─────────► server ──────────► service ─────────► provider ────────► backend
//!  bind, mode,       connections,       decode, bound,     choose the key,    wrap, unwrap,
//!  peer uid          authority filter,  deadline,          bind key_id and    observe
//!                    drain              error → code       annotations        (pkcs11, transit)
//!                                                            ▲                   ▲
//!                                                            │ snapshot          │
//!                                                          monitor ──────────────┘
//!                                                          observes the backend, once per period
//! ```
//!
//! Read [`server`], [`service`], [`provider`], [`backend`] in that order; each is one page. How the
//! backends go on is told at the top of [`backend::pkcs11`] and [`backend::transit`].
//!
//! # Invariants
//!
//! 1. **Status and Encrypt read the same snapshot**, and Encrypt uses the key that Status last told
//!    *this connection*: the apiserver refuses an Encrypt whose key_id differs from its Status.
//! 2. **A key_id says which key wrapped.** It is derived from the key's material, comes from what the
//!    backend did and not from memory, and is authenticated with the annotations: the apiserver
//!    protects neither.
//! 3. **An error rather than a doubtful answer.** The apiserver keeps a wrong seed for a day and a
//!    wrapped one for years. A key is checked before its first use and again while it is current, and
//!    what it wraps is read back before it is given out.
//! 4. **No condition of the outside world ends the process** once it serves, and none needs a restart
//!    to heal, with one exception: a PKCS#11 call that never returns (see [`backend::pkcs11`]).
//! 5. **Every wait has a deadline** that is no later than the caller's, and a hung backend blocks
//!    neither Status nor shutdown.
//! 6. **No state on the node**: what survives a restart is what the KMS holds.
//! 7. **No wall clock decides anything**, but whether a certificate is still good, which is TLS's affair.
//!    Time is tokio's, which tests and simulations pause; randomness is handed in.
//! 8. **A seed in clear exists inside one call**, in memory that is wiped and has no `Debug`.
//!
//! # What depends on what
//!
//! Arrows point one way; a test (`tests::arrows_point_one_way`) keeps them so.
//!
//! ```text
//! cli       → everything                    wires it up; the only place that ends the process
//! socket    → server                        gives connections; knows who may connect
//! server    → service, provider, authority  knows connections and shutdown; no keys
//! service   → provider                      knows gRPC; no crypto, no I/O
//! provider  → backend                       knows keys and rotation; no gRPC, no KMS
//! backend   → (leaves)                      knows one KMS; no key policy beyond it
//! config    → backend, provider, socket     makes their settings from text
//! telemetry → config,  notify → provider
//! leaves:     authority, hardening, key_id, limits, random, secret, sim_point, trusted_path
//! ```
//!
//! # Why the backend looks as it does
//!
//! [`backend::Backend`] has three calls that every KMS must answer, observe, wrap and unwrap, and two
//! that it may: unwrap what another plugin wrote, and say step by step what is in the way. It was thought through for four:
//!
//! * **PKCS#11**: sessions belong to OS threads and calls block, so requests are owned values that
//!   can be sent to a thread, and every call has a deadline after which nobody waits for it.
//! * **Vault and OpenBao transit**: the server chooses the key version unless it is told, and another
//!   version may answer than the one asked for; so `wrap` names the key and *returns* the key it
//!   used. A key that another replica made seconds ago is not known yet: `unwrap` says "no such key",
//!   the provider asks for a fresh [`observe`](backend::Backend::observe) and tries again. How deep
//!   the periodic test goes is the backend's choice, because a call costs money or a round trip there.
//! * **TPM**: a KEK sealed by the TPM and used in memory. `observe` unseals and lists, `wrap` and
//!   `unwrap` are local.
//! * **A simulated KMS**: no threads, no clock of its own, no I/O: the calls are plain futures and the
//!   deadline is tokio's time.
//!
//! What is *not* in the trait: key_id policy, AAD, framing, health, announcing, caching. They are the
//! same for all and live in [`provider`], so that a backend cannot get them wrong.
//!
//! # Deliberately absent
//!
//! * A cache of unwrapped seeds: the apiserver has one, and ours would outlive a deleted key.
//! * KMS v1, and the `v2beta1` of Kubernetes 1.27 and 1.28.
//! * Retries in the service: whether a retry helps is known where the error arises, in the backend.
//! * Any key of our own: there is no local intermediate key, so the key_id is that of the real KEK.

pub mod authority;
pub mod backend;
pub mod cli;
pub mod config;
mod hardening;
pub mod key_id;
pub mod limits;
mod notify;
pub mod provider;
pub mod random;
pub mod secret;
pub mod server;
pub mod service;
pub mod sim_point;
pub mod socket;
mod telemetry;
#[cfg(test)]
mod tests;
mod trusted_path;
