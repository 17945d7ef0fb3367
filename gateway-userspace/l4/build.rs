//! Embeds the eBPF object if it has been built: `$SLUICE_EBPF_OBJECT`, or what `cargo xtask build-ebpf`
//! leaves in `target/bpf/`. Without it the crate builds all the same and says so at run time.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=SLUICE_EBPF_OBJECT");
    let object = match env::var_os("SLUICE_EBPF_OBJECT") {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            path
        }
        None => built_object()?,
    };
    let code = if object.is_file() {
        let path = fs::canonicalize(&object)?;
        format!("Some(aya::include_bytes_aligned!({path:?}))")
    } else {
        "None".to_owned()
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("object.rs"), code)
}

/// Where `cargo xtask build-ebpf` puts the object. Cargo watches the directory, so it has to exist:
/// a watched path that is missing would make every build a rebuild.
fn built_object() -> io::Result<PathBuf> {
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&manifest).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let directory = target.join("bpf");
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    Ok(directory.join("gateway-ebpf"))
}
