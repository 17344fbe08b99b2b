//! The price table in force: the list that is built in, lists that were imported into the state
//! directory, and the prices of the configuration.
//!
//! An imported list is a file of the name of its format in `prices/`. Of several, the one that was
//! written last goes before the others.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use weir_core::pricing::{Format, PriceList, PriceTable};

use super::config::Config;
use super::limits::PRICE_LIST_BYTES_MAX;

/// The imported lists of a state directory.
#[derive(Debug)]
pub(crate) struct PriceFiles {
    directory: PathBuf,
}

/// What the files looked like: another value means that one was written or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(Vec<Look>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    format: Format,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    modified: (i64, i64),
}

impl PriceFiles {
    /// Those in `state_dir`.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.join(DIRECTORY),
        }
    }

    /// What the files look like now.
    pub(crate) fn stamp(&self) -> Stamp {
        let files = Format::ALL.into_iter().filter_map(|format| {
            let metadata = fs::metadata(self.path(format)).ok()?;
            Some(Look {
                format,
                inode: metadata.ino(),
                bytes: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            })
        });
        Stamp(files.collect())
    }

    /// The table of the built-in list, all files, and the prices of `config`. A file that can't be
    /// read is left out, with a line in the log: a call is better priced by the list below.
    pub(crate) fn table(&self, config: &Config) -> PriceTable {
        self.listed(None)
            .with_negotiated(config.pricing.negotiated.clone())
    }

    /// The table without the prices of a configuration, and without the list of a format.
    pub(crate) fn listed_without(&self, format: Format) -> PriceTable {
        self.listed(Some(format))
    }

    fn listed(&self, without: Option<Format>) -> PriceTable {
        let Stamp(mut files) = self.stamp();
        files.retain(|file| Some(file.format) != without);
        files.sort_by_key(|file| file.modified);
        let mut table = PriceTable::builtin().clone();
        for file in files {
            let path = self.path(file.format);
            match read(&path).map(|text| PriceList::parse(&text)) {
                Ok(Ok(list)) => table = table.under(list),
                Ok(Err(error)) => {
                    tracing::warn!(%error, path = %path.display(), "an imported price list is left out");
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "an imported price list is left out");
                }
            }
        }
        table
    }

    /// Writes the list of a format, whole or not at all.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn write(&self, format: Format, text: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        let path = self.path(format);
        file.persist(&path)?;
        Ok(path)
    }

    /// Removes the list of a format; tells whether there was one.
    ///
    /// # Errors
    /// It can't be removed.
    pub(crate) fn remove(&self, format: Format) -> io::Result<bool> {
        match fs::remove_file(self.path(format)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, format: Format) -> PathBuf {
        self.directory.join(format!("{}.json", format.as_str()))
    }
}

/// Reads a price file, up to a bound.
///
/// # Errors
/// It can't be read, or is longer than any price list.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(PRICE_LIST_BYTES_MAX.saturating_add(1))
        .read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > PRICE_LIST_BYTES_MAX) {
        let message = format!("expected a price list of at most {PRICE_LIST_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// In the state directory.
const DIRECTORY: &str = "prices";

#[cfg(test)]
mod tests {
    use weir_core::pricing::Context;

    use super::*;

    const LIST: &str = r#"{"version":"mine 1","models":[{"provider":"anthropic","id":"claude-opus-9","match":[{"equals":"claude-opus-9"}],"prices":[{"per_mtok":{"input":1,"output":2}}]}]}"#;

    fn version(table: &PriceTable, model: &str) -> Option<String> {
        let context = Context {
            provider: "anthropic",
            model,
            ..Context::default()
        };
        Some(table.quote(&context)?.version().into_owned())
    }

    #[test]
    fn an_imported_list_goes_over_the_built_in_one_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = PriceFiles::of(dir.path());
        let config = Config::default();
        let empty = files.stamp();
        assert_eq!(version(&files.table(&config), "claude-opus-9"), None);
        files.write(Format::Litellm, LIST).unwrap();
        assert_ne!(files.stamp(), empty);
        let table = files.table(&config);
        assert_eq!(version(&table, "claude-opus-9").as_deref(), Some("mine 1"));
        assert_eq!(
            version(&table, "claude-opus-5").as_deref(),
            Some("2026-11-22")
        );
        files.write(Format::Weir, "not a list").unwrap();
        assert_eq!(
            version(&files.table(&config), "claude-opus-9").as_deref(),
            Some("mine 1")
        );
        assert!(files.remove(Format::Litellm).unwrap() && files.remove(Format::Weir).unwrap());
        assert!(!files.remove(Format::Weir).unwrap());
        assert_eq!(files.stamp(), empty);
    }

    #[test]
    fn the_list_that_was_written_last_goes_before_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = PriceFiles::of(dir.path());
        for (format, name, age_s) in [(Format::Litellm, "old", 60), (Format::OpenRouter, "new", 0)]
        {
            let path = files.write(format, &LIST.replace("mine 1", name)).unwrap();
            let at = std::time::SystemTime::now() - std::time::Duration::from_secs(age_s);
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        }
        let found = version(&files.table(&Config::default()), "claude-opus-9");
        assert_eq!(found.as_deref(), Some("new"));
    }
}
