//! That what is kept is found again, by who shall, and by nobody else.

use std::sync::{Arc, LazyLock};

use super::*;
use weir_core::api::Api;
use weir_core::prompt;
use weir_core::rewrite::{self, Request, RuleSet, Thread};
use weir_core::volatile::Rules;

static RULES: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::builtin().unwrap()));

/// What is known after one more conversation began in a directory.
fn began(key: &HashKey, known: Option<&Tree>, directory: &str, begin: bool) -> Tree {
    let body = format!(
        r#"{{"system":"Working directory: {directory}","messages":[{{"role":"user","content":"x"}}]}}"#
    );
    let body = body.as_bytes();
    let prompt = prompt::read(body).unwrap();
    let thread = Thread::of(&prompt, body, key, &[]).unwrap();
    let request = Request {
        api: Api::Messages,
        model: "",
        body,
        prompt: &prompt,
        thread: &thread,
        key,
        untouchable: None,
        head: None,
        held_by_provider: false,
        begin,
        now_s: 0,
    };
    let current = RuleSet {
        id: 1,
        rules: Arc::clone(&RULES),
        learned: None,
    };
    let plan = rewrite::plan(&request, known, &current, |_| None);
    plan.tree.unwrap()
}

fn tree(key: &HashKey) -> Tree {
    began(key, None, "/canary/secret", true)
}

fn put(store: &Store, tree: &Tree) {
    let tree = Arc::new(tree.clone());
    store.put(7, tree, &Known::default(), 1000).unwrap();
}

fn get(store: &Store, key: Fingerprint) -> Option<Tree> {
    store.get(key, 1000).unwrap().tree.as_deref().cloned()
}

#[test]
fn what_is_remembered_outlives_the_process_and_is_not_to_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = Store::open(dir.path(), None).unwrap();
    let tree = tree(&key);
    assert!(store.is_empty());
    put(&store, &tree);
    store.put_rules(1, "text").unwrap();
    drop(store);
    let (again, same_key) = Store::open(dir.path(), None).unwrap();
    assert_eq!(same_key, key);
    assert_eq!(get(&again, 7), Some(tree));
    assert_eq!(get(&again, 8), None);
    assert_eq!(again.rules(1).as_deref(), Some("text"));
    drop(again);
    for file in fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(
            memchr::memmem::find(&bytes, b"canary").is_none(),
            "{}",
            path.display()
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{}", path.display());
    }
}

#[test]
fn what_is_only_watched_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = Store::open(dir.path(), None).unwrap();
    let tree = began(&key, None, "/canary/secret", false);
    put(&store, &tree);
    assert_eq!(get(&store, 7), Some(tree));
    assert!(!dir.path().join(DATABASE_FILE).exists());
}

#[test]
fn of_processes_that_write_the_same_at_once_none_loses_a_turn() {
    const EACH: usize = 24;
    let dir = tempfile::tempdir().unwrap();
    let all_at_once = std::sync::Barrier::new(2);
    let process = |name: &str| {
        let (store, key) = Store::open(dir.path(), None).unwrap();
        all_at_once.wait();
        for turn in 0..EACH {
            let known = store.get(7, 1000).unwrap();
            let directory = format!("/{name}/{turn}");
            let tree = began(&key, known.tree.as_deref(), &directory, true);
            store.put(7, Arc::new(tree), &known, 1000).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| process("one"));
        scope.spawn(|| process("other"));
    });
    let (store, _) = Store::open(dir.path(), None).unwrap();
    let tree = get(&store, 7).unwrap();
    assert_eq!(tree.rules().count(), 2 * EACH);
}

#[test]
fn what_another_process_edits_is_found_beside_what_this_one_watches() {
    let dir = tempfile::tempdir().unwrap();
    let (here, key) = Store::open(dir.path(), None).unwrap();
    let (there, _) = Store::open(dir.path(), None).unwrap();
    put(&here, &began(&key, None, "/watched", false));
    put(&there, &tree(&key));
    assert_eq!(get(&here, 7).unwrap().rules().count(), 2);
}

#[test]
fn a_conversation_expires_after_its_last_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = Store::open(dir.path(), None).unwrap();
    let tree = tree(&key);
    put(&store, &tree);
    let mut state = store.lock();
    let database = store.database(&mut state, true).unwrap().unwrap();
    clean(database, 1000 + KEPT_SECONDS, BYTES_MAX).unwrap();
    let count = |database: &Connection| -> i64 {
        database
            .query_row("SELECT count(*) FROM tree", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(database), 1);
    clean(database, 1001 + KEPT_SECONDS, BYTES_MAX).unwrap();
    assert_eq!(count(database), 0);
}

#[test]
fn another_secret_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = Store::open(dir.path(), None).unwrap();
    put(&store, &tree(&key));
    drop(store);
    fs::remove_file(dir.path().join(SECRET_FILE)).unwrap();
    let (store, _) = Store::open(dir.path(), None).unwrap();
    assert_eq!(get(&store, 7), None);
}

#[test]
fn the_oldest_go_where_the_file_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let (store, key) = Store::open(dir.path(), None).unwrap();
    let tree = Arc::new(tree(&key));
    for number in 0..64 {
        let used_at = i64::try_from(number).unwrap();
        let nothing = Known::default();
        store
            .put(number, Arc::clone(&tree), &nothing, used_at)
            .unwrap();
    }
    let mut state = store.lock();
    let database = store.database(&mut state, true).unwrap().unwrap();
    clean(database, 64, BYTES_MAX).unwrap();
    let oldest = |database: &Connection| -> i64 {
        let oldest = "SELECT min(used_at) FROM tree";
        database.query_row(oldest, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(oldest(database), 0);
    clean(database, 64, 4096).unwrap();
    assert_eq!(oldest(database), 5, "a sixteenth of them, and one");
}

#[test]
fn what_is_held_opened_is_what_was_written_last_whoever_did() {
    let dir = tempfile::tempdir().unwrap();
    let (here, key) = Store::open(dir.path(), None).unwrap();
    let (there, _) = Store::open(dir.path(), None).unwrap();
    put(&here, &tree(&key));
    let opened = here.get(7, 1000).unwrap().tree.unwrap();
    let again = here.get(7, 1000).unwrap().tree.unwrap();
    assert!(Arc::ptr_eq(&opened, &again), "it is not opened twice");
    let known = there.get(7, 1000).unwrap();
    let theirs = began(&key, known.tree.as_deref(), "/there", true);
    there
        .put(7, Arc::new(theirs.clone()), &known, 1000)
        .unwrap();
    assert_eq!(get(&here, 7), Some(theirs));
}

#[test]
fn no_more_is_held_than_may_be() {
    let mut held = Held::default();
    let tree = Arc::new(tree(&HashKey::new([1; 16])));
    let (trees_max, bytes) = (8, tree.bytes());
    let bounds = |bytes_max| Bounds {
        trees_max,
        bytes_max,
    };
    for key in 0..20 {
        held.hold(key, None, Arc::clone(&tree), bounds(usize::MAX));
    }
    assert_eq!((held.trees.len(), held.bytes), (8, 8 * bytes));
    held.hold(20, None, Arc::clone(&tree), bounds(3 * bytes));
    assert_eq!((held.trees.len(), held.bytes), (3, 3 * bytes));
    assert!(held.tree(20).is_some(), "the latest stays");
}
