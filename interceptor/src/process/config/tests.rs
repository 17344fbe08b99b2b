//! What the configuration accepts, and how it says what it does not.
use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("weir.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_means_the_defaults() {
    let expected = Config {
        source: Some(PathBuf::from("weir.toml")),
        ..Config::default()
    };
    assert_eq!(parse(""), Ok(expected));
}
