//! Who makes a call, and where to: the values that caps are kept by.

use serde::{Deserialize, Serialize};

/// Who makes a call, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    /// The keyed hash of the API key that the call carries; never the key.
    pub key: Option<String>,
    /// The user that the program runs as.
    pub user: Option<String>,
    /// The program.
    pub process: Option<String>,
    /// Its control group.
    pub cgroup: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// Its Kubernetes pod.
    pub pod: Option<String>,
    /// The Kubernetes namespace of the pod.
    pub namespace: Option<String>,
    /// The Kubernetes service account of the pod.
    pub service_account: Option<String>,
    /// The team, as configured.
    pub team: Option<String>,
    /// The session that the program names in the call.
    pub session: Option<String>,
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
