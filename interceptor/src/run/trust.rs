//! What the command gets so that its runtime trusts the CA.

use std::path::Path;

use weir_certs::Authority;
use weir_certs::trust::{self, Files, JavaDelivery, Surroundings, TrustError};

use super::child::{self, Overlay};
use super::invoker::{Invoker, Variables};
use super::{Arguments, RunError};
use crate::process::state::StateDirectory;

/// Variables and files of the command.
#[derive(Debug)]
pub(super) struct Trust {
    /// To be set.
    pub(super) environment: Variables,
    /// To be laid over files of runtimes.
    pub(super) overlays: Vec<Overlay>,
    /// For the log: who will not trust the CA, and why.
    pub(super) notes: Vec<String>,
    /// What the variables and overlays name, which stays as long as this does.
    _files: Files,
}

impl Trust {
    /// Writes the bundles that the command of `invoker` will read.
    pub(super) fn prepare(
        state: &StateDirectory,
        authority: &Authority,
        invoker: &Invoker,
        arguments: &Arguments,
    ) -> Result<Self, RunError> {
        let surroundings = Surroundings {
            root: "/".into(),
            environment: invoker.environment.clone(),
            directory: std::env::current_dir().map_err(RunError::WorkingDirectory)?,
            program: arguments.command.first().cloned(),
            invoker: invoker
                .identity
                .as_ref()
                .map(|identity| identity.uid.as_raw()),
        };
        let files = match &arguments.public_dir {
            Some(directory) => Files::open(directory, authority)?,
            None => public_files(state, authority)?,
        };
        let mut notes = vec![];
        if let (Some(closed), Some(_)) = (files.closed_at(), &invoker.identity) {
            let closed = closed.display();
            notes.push(format!(
                "the invoking user cannot read bundles below {closed}"
            ));
        }
        let may_overlay = child::can_overlay();
        let java = if may_overlay.is_ok() {
            JavaDelivery::Overlay
        } else {
            JavaDelivery::Option
        };
        let environment = trust::environment(&surroundings, &files, java)?;
        notes.extend(environment.notes);
        let mut overlays = vec![];
        match may_overlay {
            Ok(()) => {
                let found = trust::overlays(&surroundings, &files)?;
                notes.extend(found.notes);
                overlays.extend(found.list.iter().filter_map(Overlay::new));
            }
            Err(error) => notes.push(format!(
                "the command gets no mount namespace of its own, so runtimes that bring their own \
                 roots do not trust the CA and are passed through: {error}"
            )),
        }
        let environment = environment
            .set
            .into_iter()
            .map(|(name, value)| (name.into(), value));
        Ok(Self {
            environment: environment.collect(),
            overlays,
            notes,
            _files: files,
        })
    }
}

/// Where other users can read them, if this is root: the state directory is closed to them.
pub(crate) fn public_files(
    state: &StateDirectory,
    authority: &Authority,
) -> Result<Files, TrustError> {
    if nix::unistd::geteuid().is_root() {
        match Files::open(Path::new(PUBLIC_OF_ROOT), authority) {
            Ok(files) => return Ok(files),
            Err(error) => tracing::warn!(%error, "bundles go into the state directory"),
        }
    }
    Files::open(&state.path().join("trust"), authority)
}

/// Gone at the next boot, as are the programs that read it.
const PUBLIC_OF_ROOT: &str = "/run/weir/trust";
