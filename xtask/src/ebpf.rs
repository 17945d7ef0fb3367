//! `cargo xtask build-ebpf`: builds gateway-ebpf for the kernel into `target/bpf/gateway-ebpf`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, anyhow, bail};

use crate::workspace::root;

/// What the object is built for.
pub const TARGET: &str = "bpfel-unknown-none";

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Say nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Builds the object.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let toolchains = Toolchain::usable()?;
    let mut built = Err(anyhow!("no toolchain"));
    for toolchain in &toolchains {
        if !args.quiet {
            println!("build-ebpf: using {}", toolchain.description);
        }
        built = toolchain.build(args.quiet);
        match &built {
            Ok(_) => break,
            Err(error) => eprintln!("build-ebpf: {}: {error:#}", toolchain.description),
        }
    }
    let output = directory().join("gateway-ebpf");
    install(&built?, &output)?;
    if !args.quiet {
        println!("build-ebpf: {}", output.display());
    }
    Ok(())
}

/// A compiler that has `core` for the kernel, one way or the other.
pub struct Toolchain {
    /// What it is, for people.
    pub description: String,
    rustc: PathBuf,
    /// Compile `core` from its sources.
    build_std: bool,
    /// The major version of its LLVM, if it tells.
    llvm: Option<u32>,
}

impl Toolchain {
    /// The toolchains that can build the object, in the order of preference: rustup's nightly with rust-src, a
    /// system rustc with a prebuilt `core` for the target. bpf-linker reads what they write, so it has to be of
    /// the same LLVM.
    pub fn usable() -> anyhow::Result<Vec<Self>> {
        let found = Self::found();
        if found.is_empty() {
            bail!(
                "no Rust toolchain can build for {TARGET}: neither rustup's nightly with rust-src nor a \
                 system rustc with a prebuilt core (Debian: rustc-web, libstd-rust-web-dev-bpf); \
                 `cargo xtask setup` installs one"
            );
        }
        let Some(linker) = which("bpf-linker") else {
            bail!("bpf-linker is not on the PATH; `cargo xtask setup` installs it");
        };
        let llvm = linker_llvm(&linker);
        let (usable, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|toolchain| toolchain.fits(llvm));
        if usable.is_empty() {
            let names: Vec<_> = others
                .iter()
                .map(|other| other.description.as_str())
                .collect();
            bail!(
                "bpf-linker is built with LLVM {}, and no toolchain is: {}; `cargo xtask setup` installs one",
                llvm.unwrap_or(0),
                names.join(", ")
            );
        }
        Ok(usable)
    }

    /// Whether there is a toolchain for a bpf-linker of this LLVM.
    pub fn exists_for(llvm: Option<u32>) -> bool {
        Self::found().iter().any(|toolchain| toolchain.fits(llvm))
    }

    fn found() -> Vec<Self> {
        nightly().into_iter().chain(system()).collect()
    }

    /// What is not known is tried.
    fn fits(&self, llvm: Option<u32>) -> bool {
        self.llvm
            .zip(llvm)
            .is_none_or(|(own, wanted)| own == wanted)
    }

    fn build(&self, quiet: bool) -> anyhow::Result<PathBuf> {
        let target_dir = root().join("target/bpf-build");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(root().join("gateway-ebpf"))
            .args([
                "build",
                "--release",
                "--locked",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target_dir)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags().join("\x1f"))
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_BUILD_TARGET");
        if self.build_std {
            cargo.args(["-Z", "build-std=core"]);
        }
        if quiet {
            cargo.arg("--quiet");
        }
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("the eBPF object does not build ({status})");
        }
        Ok(target_dir.join(TARGET).join("release/gateway-ebpf"))
    }
}

/// The major version of the LLVM that a bpf-linker loads; none if it carries its own.
pub fn linker_llvm(linker: &Path) -> Option<u32> {
    let binary = fs::read(linker).ok()?;
    let name = b"libLLVM.so.";
    let at = binary
        .windows(name.len())
        .position(|window| window == name)?
        + name.len();
    let digits = binary[at..].iter().take_while(|byte| byte.is_ascii_digit());
    String::from_utf8(digits.copied().collect())
        .ok()?
        .parse()
        .ok()
}

/// The flags that the programs rely on: aya's bindings want the machine's name, names of maps and programs
/// come from BTF, and packet fields lie where the packet has them.
fn rustflags() -> Vec<String> {
    let arch = env::consts::ARCH;
    vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ]
}

/// rustup's nightly, if it has the sources of `core`.
fn nightly() -> Option<Toolchain> {
    let rustc = output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))?;
    let rustc = PathBuf::from(rustc);
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    source.is_file().then(|| Toolchain {
        description: format!("rustup nightly with rust-src ({})", version(&rustc)),
        llvm: llvm(&rustc),
        rustc,
        build_std: true,
    })
}

/// A system rustc, if a `core` for the target is installed beside it.
fn system() -> Option<Toolchain> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let libraries =
        output(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let mut entries = fs::read_dir(libraries).ok()?.filter_map(Result::ok);
    entries
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        .then(|| Toolchain {
            description: format!(
                "{} with a prebuilt core for {TARGET} ({})",
                rustc.display(),
                version(&rustc)
            ),
            llvm: llvm(&rustc),
            rustc,
            build_std: false,
        })
}

fn version(rustc: &Path) -> String {
    output(Command::new(rustc).arg("--version")).unwrap_or_else(|| "unknown version".to_owned())
}

fn llvm(rustc: &Path) -> Option<u32> {
    let told = output(Command::new(rustc).arg("-vV"))?;
    let version = told
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// Puts the object in place, but only if it is another one: its date decides whether others rebuild.
fn install(built: &Path, output: &Path) -> anyhow::Result<()> {
    let object = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(output).is_ok_and(|present| present == object) {
        return Ok(());
    }
    fs::create_dir_all(directory())?;
    let temporary = root().join("target/gateway-ebpf.new");
    fs::write(&temporary, object)?;
    fs::rename(&temporary, output).with_context(|| format!("cannot write {}", output.display()))
}

/// Where build.rs of gateway-l4 looks for the object.
fn directory() -> PathBuf {
    root().join("target/bpf")
}

/// Where a command is found on the PATH.
pub fn which(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(command))
        .find(|file| file.is_file())
}

/// A command's trimmed output, if it could be run and succeeded.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
