//! C programs as a host compiles, links and runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

/// Which library a program gets, and how.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Linking {
    Shared,
    Static,
    /// The shared library with the checks of a debug build, which panics on demand: `tests/checked`.
    Checked,
}

/// A program that is ready to run.
pub(crate) struct Program {
    name: String,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// Compiles `tests/programs/NAME.c`.
    pub(crate) fn compile(name: &str, linking: Linking, flags: &[&str]) -> Self {
        let source = std::fs::read_to_string(programs().join(name).with_extension("c")).unwrap();
        Self::of_source(name, &source, linking, flags)
    }

    /// Compiles a program as it stands here.
    pub(crate) fn of_source(name: &str, source: &str, linking: Linking, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = (folder.path().join(format!("{name}.c")), folder.path().join(name));
        std::fs::write(&file, source).unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]).args(flags);
        compile.arg("-I").arg(root().join("include")).arg("-I").arg(programs());
        compile.arg(&file).arg("-o").arg(&path);
        match linking {
            Linking::Shared => compile.arg("-L").arg(libraries()).arg("-lantiphon"),
            Linking::Static => compile.arg(library("a")),
            Linking::Checked => compile.arg("-L").arg(libraries().join("examples")).arg("-lantiphon_checked"),
        };
        succeed(compile.args(["-lpthread", "-ldl", "-lm"]).output().expect("a C compiler"), name);
        Self { name: name.to_owned(), path, _folder: folder }
    }

    /// Runs it and gives what it wrote; it has to succeed, without a word on its standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        succeed(self.command(&[]).args(arguments).output().unwrap(), &self.name)
    }

    /// Runs it as another program's last argument. The whole output comes back, and the other has to succeed.
    pub(crate) fn run_under(&self, tool: &[&str], arguments: &[&str]) -> String {
        let output = self.command(tool).args(arguments).output();
        let Ok(output) = output else {
            panic!("`{}` is missing: install the package of that name (`cargo xtask test tools`)", tool[0])
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{} under {}: {}\n{said}", self.name, tool[0], output.status);
        said
    }

    fn command(&self, tool: &[&str]) -> Command {
        let mut command = match tool {
            [] => Command::new(&self.path),
            [tool, flags @ ..] => {
                let mut command = Command::new(tool);
                command.args(flags).arg(&self.path);
                command
            }
        };
        let folders = [libraries().to_owned(), libraries().join("examples")];
        command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
        command
    }
}

/// What a program wrote that succeeded and left its standard error alone.
pub(crate) fn succeed(output: Output, name: &str) -> String {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}{errors}", output.status);
    assert_eq!(errors, "", "{name} wrote to its standard error");
    said.into_owned()
}

pub(crate) fn example(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("bindings/c/examples/{name}.c"))).unwrap()
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

pub(crate) fn library(ending: &str) -> PathBuf {
    libraries().join(format!("libantiphon.{ending}"))
}

/// The folder of the libraries; the checked one is in `examples` below it. Tests of a package without a Rust library do not
/// have them built.
pub(crate) fn libraries() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned();
        let target = folder.parent().expect("target");
        let build = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet", "-p", "antiphon-capi"])
            .args(["--lib", "--example", "antiphon_checked", "--target-dir"])
            .arg(target)
            .current_dir(root())
            .status();
        assert!(build.expect("cargo runs").success());
        target.join("release")
    });
    &FOLDER
}
