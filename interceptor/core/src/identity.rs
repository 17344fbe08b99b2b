//! Who makes a call, and where to: the values that caps are kept by.

use serde::{Deserialize, Serialize};

/// Who makes a call, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The keyed hash of the API key that the call carries; never the key.
    pub key: Option<String>,
    /// The name of the user that the program runs as, or the number where it has no name.
    pub user: Option<String>,
    /// The name of the program.
    pub process: Option<String>,
}

/// Who calls what: everything that a cap may be kept by.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who makes the call.
    pub caller: &'a Caller,
    /// The provider's id.
    pub provider: &'a str,
    /// The host that is called.
    pub host: &'a str,
    /// The model that is asked for.
    pub model: &'a str,
}
