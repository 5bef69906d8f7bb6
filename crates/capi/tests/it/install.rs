//! The library as it is installed: by CMake into a folder of its own, where the examples are built against it as a host's build
//! would, through pkg-config and through CMake's package, with the shared and with the static library.

use std::path::Path;
use std::process::Command;

use crate::host::{libraries, root, succeed};
use crate::programs::check_examples;

#[test]
fn the_installed_library_is_found_by_pkg_config_and_by_cmake() {
    let folder = tempfile::tempdir().unwrap();
    let (prefix, build) = (folder.path().join("prefix"), folder.path().join("build"));
    let libraries = format!("-DANTIPHON_LIBRARIES={}", libraries().display());
    let place = format!("-DCMAKE_INSTALL_PREFIX={}", prefix.display());
    cmake(&["-S", &bindings("."), "-B", path(&build), &libraries, &place]);
    cmake(&["--install", path(&build)]);
    let header = std::fs::read(root().join("include/antiphon.h")).unwrap();
    assert_eq!(std::fs::read(prefix.join("include/antiphon.h")).unwrap(), header);
    // It may be moved: nothing in it knows where it was installed.
    let moved = folder.path().join("moved");
    std::fs::rename(&prefix, &moved).unwrap();

    for linking in ["shared", "static"] {
        check_examples(|example| {
            let program = folder.path().join(example);
            let mut compile = Command::new("cc");
            compile.arg(bindings(&format!("examples/{example}.c"))).arg("-o").arg(&program);
            compile.args(pkg_config(&moved, linking)).arg("-lpthread");
            succeed(compile.output().expect("a C compiler"), example);
            run(&program, &moved)
        });

        let build = folder.path().join(linking);
        let prefix = format!("-DCMAKE_PREFIX_PATH={}", moved.display());
        let linking = format!("-DANTIPHON_LINKING={linking}");
        cmake(&["-S", &bindings("examples"), "-B", path(&build), &prefix, &linking]);
        cmake(&["--build", path(&build)]);
        check_examples(|example| run(&build.join(example), &moved));
    }
    let version = pkg_config_says(&moved, &["--modversion"]);
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn cargo_c_finds_the_committed_header_and_the_version_of_the_interface() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let header = std::fs::read_to_string(root().join("include/antiphon.h")).unwrap();
    let (_, version) = header.split_once("#define ANTIPHON_ABI_VERSION ").expect("a version");
    let version = version.lines().next().expect("a line");
    let (_, library) = manifest.split_once("[package.metadata.capi.library]").expect("what cargo-c reads");
    assert!(library.contains(&format!("version = \"{version}.0.0\"")), "{library}");
    assert!(manifest.contains("\ncapi = []"), "the feature that cargo-c switches on");
    let found = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/antiphon.h"));
    assert_eq!(found.unwrap(), header);
}

fn pkg_config(prefix: &Path, linking: &str) -> Vec<String> {
    let flags: &[&str] =
        if linking == "static" { &["--cflags", "--libs", "--static"] } else { &["--cflags", "--libs"] };
    let said = pkg_config_says(prefix, flags);
    let mut flags: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    if linking == "static" {
        // Where both are there, a linker takes the shared one unless it is told not to.
        for flag in &mut flags {
            if flag == "-lantiphon" {
                "-l:libantiphon.a".clone_into(flag);
            }
        }
    }
    flags
}

fn pkg_config_says(prefix: &Path, flags: &[&str]) -> String {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(flags).arg("antiphon");
    succeed(command.output().expect("`pkg-config` is missing (`cargo xtask test tools`)"), "pkg-config")
}

fn cmake(arguments: &[&str]) {
    let output = Command::new("cmake").args(arguments).output();
    succeed(output.expect("`cmake` is missing (`cargo xtask test tools`)"), "cmake");
}

fn run(program: &Path, prefix: &Path) -> String {
    let output = Command::new(program).env("LD_LIBRARY_PATH", prefix.join("lib")).output().unwrap();
    succeed(output, path(program))
}

fn bindings(file: &str) -> String {
    path(&root().join("bindings/c").join(file)).to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
