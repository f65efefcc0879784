//! The original chooses here among libfuse 2, libfuse 3 and its own code for mounting.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=fuser_mount_impl=\"pure-rust\"");
}
