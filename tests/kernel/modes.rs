//! The steps down the ladder: the packet filter, and a proxy that the command is told of.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::sdks::{
    NODE_OPENAI, PYTHON_ANTHROPIC, PYTHON_BEDROCK, PYTHON_OPENAI, Sdk, installation,
};
use crate::world::{Providers, Setup, World, installed, success};

fn one_call_is_inspected(sdk: Sdk, mode: &str, providers: Providers) {
    installation();
    let world = World::new(Setup {
        config: "",
        providers,
    });
    let output = world.output(sdk.run(&world, &["--mode", mode], "one"));
    success(&output);
    world.books_agree();
    let records = world.records();
    assert_eq!(records.len(), 1, "{records:?}");
    // Found in /proc, where the kernel programs are not there to tell.
    assert!(
        records[0].program.starts_with("python") || records[0].program == "node",
        "{records:?}"
    );
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.contains("weir: 1 LLM call, $"), "{summary}");
    assert!(summary.contains(&format!("weir: mode {mode}")), "{summary}");
}

/// The packet filter sees packets, so there must be a route; nothing listens at its end.
#[test]
fn the_packet_filter_redirects() {
    installed("nft", "nftables");
    one_call_is_inspected(PYTHON_ANTHROPIC, "redirect", Providers::Here);
    one_call_is_inspected(NODE_OPENAI, "redirect", Providers::Here);
}

fn words(command: &Command) -> impl Iterator<Item = &OsStr> {
    [command.get_program()]
        .into_iter()
        .chain(command.get_args())
}

fn take_environment(command: &mut Command, from: &Command) {
    let set = from
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.envs(set);
}

/// As in a container, where the kernel knows processes by other numbers than `/proc`.
#[test]
fn in_a_namespace_of_its_own_the_program_is_known_all_the_same() {
    installed("unshare", "util-linux");
    installation();
    let world = World::new(Setup {
        config: "",
        providers: Providers::Here,
    });
    let weir = PYTHON_ANTHROPIC.run(&world, &["--mode", "ebpf"], "one");
    let mut inside = Command::new("unshare");
    inside
        .args(["--pid", "--fork", "--mount-proc"])
        .args(words(&weir));
    inside.env_clear().stdin(Stdio::null());
    take_environment(&mut inside, &weir);
    success(&world.output(inside));
    world.books_agree();
    let records = world.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0].program.starts_with("python"), "{records:?}");
}

/// As where an agent that was started with Weir starts another with it.
#[test]
fn of_one_weir_inside_another_each_call_counts_once() {
    installed("nft", "nftables");
    installation();
    for (outer, inner) in [("ebpf", "ebpf"), ("redirect", "ebpf"), ("ebpf", "proxy")] {
        let world = World::new(Setup {
            config: "",
            providers: Providers::Here,
        });
        // Told not to refuse or edit anything, the inner one changes nothing about that.
        let inside = PYTHON_ANTHROPIC.run(&world, &["--observe", "--mode", inner], "one");
        let mut outside = world.run(&["--mode", outer], words(&inside));
        take_environment(&mut outside, &inside);
        let output = world.output(outside);
        success(&output);
        world.books_agree();
        assert_eq!(world.records().len(), 1, "{outer} around {inner}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.matches("weir: 1 LLM call, $").count(), 1, "{said}");
        assert!(!said.contains("not inspected"), "{said}");
    }
}

#[test]
fn a_program_that_heeds_https_proxy_goes_through_it() {
    one_call_is_inspected(PYTHON_ANTHROPIC, "proxy", Providers::Nowhere4);
    one_call_is_inspected(PYTHON_OPENAI, "proxy", Providers::Nowhere4);
    one_call_is_inspected(PYTHON_BEDROCK, "proxy", Providers::Nowhere4);
}
