//! The header is made from the sources, is committed as it is made, and every C and C++ compiler takes it.
//!
//! After a change: `ANTIPHON_BLESS=1 cargo test --release -p antiphon-capi --test it header`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The order of the header's sections.
const SECTIONS: [&str; 9] =
    ["error", "text", "engine", "request", "answer", "event", "stream", "conversation", "plugins"];

#[test]
fn the_committed_header_is_the_one_that_the_sources_make() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for section in SECTIONS {
        builder = builder.with_src(folder.join(format!("src/{section}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let (made, path) = (String::from_utf8(made).unwrap(), header());
    if std::env::var_os("ANTIPHON_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == made, "{} is not what the sources make: see the top of this test", path.display());
}

#[test]
fn the_comment_at_the_top_names_every_error() {
    let header = std::fs::read_to_string(header()).unwrap();
    for kind in antiphon::ErrorKind::ALL {
        let named = format!("{} {}", kind.code(), kind.name());
        assert!(header.contains(&named), "{named}");
    }
}

#[test]
fn c_and_cpp_compilers_take_it_from_two_files_of_one_program() {
    let folder = tempfile::tempdir().unwrap();
    let one = "#include <antiphon.h>\n#include <antiphon.h>\nint other(void);\nint main(void) { return other(); }\n";
    let two = "#include <antiphon.h>\nint other(void);\nint other(void) { return ANTIPHON_OK; }\n";
    for (compiler, standard, ending) in [("cc", "-std=c11", "c"), ("c++", "-std=c++17", "cpp")] {
        let files = [("one", one), ("two", two)].map(|(name, text)| {
            let path = folder.path().join(format!("{name}.{ending}"));
            std::fs::write(&path, text).unwrap();
            path
        });
        let program = folder.path().join(ending);
        let include = header().parent().unwrap().to_owned();
        let compile = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
            .arg(include)
            .args(files)
            .arg("-o")
            .arg(&program)
            .status();
        // A C compiler is needed everywhere; one for C++ may be missing.
        let Ok(status) = compile else {
            assert_ne!(compiler, "cc", "no C compiler");
            continue;
        };
        assert!(status.success(), "{compiler} refuses the header");
        assert!(Command::new(program).status().unwrap().success());
    }
}

fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include/antiphon.h")
}
