//! The table of the prompt cache, in a terminal and in a pipe.

use super::*;

/// Checks the rows of the report of the cache between its title and its notes, and gives all of it.
fn check_rows(by: &[GroupKey], columns: usize, rows: &str) -> String {
    let table = ask(by, |reader, query| {
        render_table(&cache(reader, query).unwrap(), columns)
    });
    let rows = rows.trim_start_matches('\n');
    check(&table, &format!("{TITLE}\n\n{rows}{NOTES}"));
    table
}

const TITLE: &str = "prompt cache since 2026-11-01 23:30";
const NOTES: &str = r"
+ 1 call of a model without a price, not in the cost: see weir prices check
+ 1 call without any usage told, not in tokens and cost
$0.0125 of the cost is estimated, for calls of unknown usage or price
hits: calls that read all they could; read%: share of the input that was read;
w/r: tokens written, of those read; saved: by the cache; missed: what it could
have saved besides; rewrite: what of that rewriting saved, or would have
";

#[test]
fn the_cache_report_is_a_table_that_fits_a_terminal() {
    let keys = [GroupKey::Provider, GroupKey::Model];
    let narrow = check_rows(
        &keys,
        80,
        r#"
provider   model
  calls hits input  read read%  w/r     cost    saved  missed rewrite
anthropic  claude-sonnet-4-5-20250929
      2 0.0% 1.27M 1.23M 96.5% 3.4%  $0.5564  $3.3019 $0.0000 $0.0000
anthropic  claude-haiku-4-5
      3 0.0% 10000  9000 90.0% 0.0% $0.0149+ $0.0081+ $0.0000 $0.0000
openai     gpt-?[31mnext, "new"
      1 0.0%   100    10 10.0% 0.0%        ?        ? $0.0000 $0.0000
total
      6 0.0% 1.28M 1.24M 96.5% 3.3% $0.5713+ $3.3100+ $0.0000 $0.0000
"#,
    );
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 80),
        "{narrow}"
    );
    check_rows(
        &keys,
        usize::MAX,
        r#"
provider   model                       calls hits input  read read%  w/r     cost    saved  missed rewrite
anthropic  claude-sonnet-4-5-20250929      2 0.0% 1.27M 1.23M 96.5% 3.4%  $0.5564  $3.3019 $0.0000 $0.0000
anthropic  claude-haiku-4-5                3 0.0% 10000  9000 90.0% 0.0% $0.0149+ $0.0081+ $0.0000 $0.0000
openai     gpt-?[31mnext, "new"            1 0.0%   100    10 10.0% 0.0%        ?        ? $0.0000 $0.0000
total                                      6 0.0% 1.28M 1.24M 96.5% 3.3% $0.5713+ $3.3100+ $0.0000 $0.0000
"#,
    );
}

#[test]
fn the_cache_report_groups_by_what_it_is_asked_for() {
    let keys = [GroupKey::Day, GroupKey::User, GroupKey::Key];
    check_rows(
        &keys,
        usize::MAX,
        r#"
day         user   key            calls hits input  read read%  w/r     cost    saved  missed rewrite
2026-11-01  1000   01234567…x7Qz      5 0.0% 1.28M 1.24M 96.5% 3.3% $0.5713+ $3.3100+ $0.0000 $0.0000
2026-11-02  alice  01234567…x7Qz      1 0.0%   100    10 10.0% 0.0%        ?        ? $0.0000 $0.0000
total                                 6 0.0% 1.28M 1.24M 96.5% 3.3% $0.5713+ $3.3100+ $0.0000 $0.0000
"#,
    );
    check_rows(
        &[],
        usize::MAX,
        r#"
       calls hits input  read read%  w/r     cost    saved  missed rewrite
total      6 0.0% 1.28M 1.24M 96.5% 3.3% $0.5713+ $3.3100+ $0.0000 $0.0000
"#,
    );
}
