//! Within one version of the interface we only add: what is there is compared with a committed description of it.
//!
//! The description is made by `abidw` from a library of stubs: the functions of the header, defined by the header's own types, so
//! that the names, sizes and offsets of structs and the types of every argument are in its debug information. That the real
//! library exports the same functions is another test's business, and that its types are these, the header's generator's.
//!
//! After an addition: `ANTIPHON_BLESS=1 cargo test --release -p antiphon-capi --test it abi`. A change of what was there needs
//! another `ANTIPHON_ABI_VERSION`, and with it another file.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::declarations::{Declaration, declarations};
use crate::host::{root, succeed};

#[test]
fn the_interface_is_the_committed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (library, committed) = (stubs(folder.path(), &root().join("include")), committed());
    if std::env::var_os("ANTIPHON_BLESS").is_some() {
        if committed.exists() {
            let (same, report) = compare(&committed, &library, &["--no-added-syms"]);
            assert!(
                same,
                "not only additions: raise ANTIPHON_ABI_VERSION, or delete the description\n{report}"
            );
        }
        std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
        let quiet = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs"];
        let described =
            Command::new("abidw").args(quiet).arg("--out-file").arg(&committed).arg(&library).output();
        succeed(described.expect(MISSING), "abidw");
    }
    let (same, report) = compare(&committed, &library, &[]);
    assert!(same, "the interface is another: see the top of this test\n{report}");
}

#[test]
fn a_changed_struct_and_a_changed_signature_are_noticed() {
    for (from, to) in [
        ("const char *antiphon_version(void)", "char *antiphon_version(void)"),
        ("  uint64_t index;", "  uint32_t index;"),
        ("bool antiphon_error_retryable", "int antiphon_error_retryable"),
        ("size_t start;", "int64_t start;"),
        ("// Frees an error", "// Ends an error"), // which is none
    ] {
        let folder = tempfile::tempdir().unwrap();
        let header = std::fs::read_to_string(root().join("include/antiphon.h")).unwrap();
        let changed = header.replace(from, to);
        assert_ne!(changed, header, "{from}");
        std::fs::write(folder.path().join("antiphon.h"), &changed).unwrap();
        let library = stubs(folder.path(), folder.path());
        assert_eq!(compare(&committed(), &library, &[]).0, from.starts_with("//"), "{to}");
    }
}

/// Compares a description with a library; gives whether they agree, and what `abidiff` says.
fn compare(description: &Path, library: &Path, flags: &[&str]) -> (bool, String) {
    let output = Command::new("abidiff")
        .arg("--harmless")
        .args(flags)
        .arg(description)
        .arg(library)
        .output()
        .expect(MISSING);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}

/// Builds a library that defines every function of the header that is in `include`, as it is declared there.
fn stubs(folder: &Path, include: &Path) -> PathBuf {
    let mut source = "#include <antiphon.h>\n".to_owned();
    for Declaration { returns, name, parameters } in declarations() {
        let typed = parameters.iter().map(|parameter| format!("{} {}", parameter.kind, parameter.name));
        let typed = Some(typed.collect::<Vec<_>>().join(", ")).filter(|typed| !typed.is_empty());
        let typed = typed.unwrap_or("void".to_owned());
        let like = format!("__typeof__({name}({}))", vec!["0"; parameters.len()].join(", "));
        let body =
            if returns == "void" { String::new() } else { format!("static {like} none; return none;") };
        writeln!(source, "{like} {name}({typed}) {{ {body} }}").unwrap();
    }
    let (file, library) = (folder.join("stubs.c"), folder.join("libstubs.so"));
    std::fs::write(&file, source).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-std=gnu11", "-g", "-shared", "-fPIC", "-Wno-unused-parameter", "-I"]).arg(include);
    // Where it was made is no matter of the description.
    compile.arg(format!("-ffile-prefix-map={}=.", folder.display()));
    compile.arg("-Wl,-soname,libantiphon.so").arg(&file).arg("-o").arg(&library);
    succeed(compile.output().expect("a C compiler"), "stubs");
    library
}

fn committed() -> PathBuf {
    let header = std::fs::read_to_string(root().join("include/antiphon.h")).unwrap();
    let (_, version) = header.split_once("#define ANTIPHON_ABI_VERSION ").expect("a version");
    let version = version.lines().next().expect("a line");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("abi/antiphon-{version}.abi"))
}

const MISSING: &str =
    "`abidw` and `abidiff` are in Debian's package abigail-tools (`cargo xtask test tools`)";
