//! Says which eBPF object is embedded: the committed one, or the one that `EBPF_OBJECT` names.

use std::{env, path::Path};

fn main() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("redirect.bpf.o");
    let object = env::var_os("EBPF_OBJECT").map_or(committed, Into::into);
    println!("cargo::rerun-if-env-changed=EBPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env=WEIR_EBPF_OBJECT={}", object.display());
}
