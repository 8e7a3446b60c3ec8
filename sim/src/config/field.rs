//! Faults of fields, as upstream prints them (`apimachinery/pkg/util/validation/field/errors.go`).

use std::fmt;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// `resources[0].providers[1].kms.name`
    pub field: String,
    /// What kind of fault.
    pub fault: Fault,
    /// In words.
    pub detail: String,
}

/// The kinds of fault that there are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Required,
    /// It is wrong; the value as JSON prints it. Keys are blacked out, where upstream prints them.
    Invalid(String),
}

impl Fault {
    /// Upstream's name of the kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid(_) => "FieldValueInvalid",
        }
    }
}

impl FieldError {
    /// A field that is missing.
    #[must_use]
    pub fn required(field: &str, detail: &str) -> Self {
        let (field, detail) = (field.to_owned(), detail.to_owned());
        Self { field, fault: Fault::Required, detail }
    }

    /// A field with a wrong value.
    #[must_use]
    pub fn invalid(field: &str, value: String, detail: &str) -> Self {
        let (field, detail) = (field.to_owned(), detail.to_owned());
        Self { field, fault: Fault::Invalid(value), detail }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Required => write!(f, "{}: Required value: {}", self.field, self.detail),
            Fault::Invalid(value) => {
                write!(f, "{}: Invalid value: {value}: {}", self.field, self.detail)
            }
        }
    }
}
