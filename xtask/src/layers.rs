//! Who may import whom: `kernels <- inference <- antiphon <- faces`, and `models` a leaf behind one feature.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::command;

/// Every package of the workspace and the packages of the workspace that it may import.
/// A package that is not here fails the check, so a new one gets its place on purpose.
const LAYERS: &[(&str, &[&str])] = &[
    (MODELS, &[]),
    ("antiphon-kernels", &[]),
    ("antiphon-inference", &["antiphon-kernels"]),
    (CORE, &["antiphon-inference", "antiphon-kernels", MODELS]),
    // Faces see the public face of the core and nothing below it.
    ("antiphon-cli", &[CORE]),
    ("antiphon-capi", &[CORE]),
    ("antiphon-python", &[CORE]),
    // Benches use the public face like anyone else, and the crates below where single kernels and models are measured.
    ("antiphon-benches", &[CORE, "antiphon-inference", "antiphon-kernels"]),
    ("xtask", &[]),
];
const CORE: &str = "antiphon";
const MODELS: &str = "antiphon-models";
/// The one feature that puts the default models into the core.
const BUNDLED: &str = "bundled";

/// Checks the workspace at `root`; the error lists every forbidden edge.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let json = command::stdout(&mut command::cargo(root, "metadata --no-deps --format-version 1 --locked"))?;
    let metadata: Metadata = serde_json::from_str(&json).map_err(|e| format!("cargo metadata: {e}"))?;
    let violations = violations(&metadata.packages);
    if violations.is_empty() { Ok(()) } else { Err(violations.join("\n")) }
}

/// The part of `cargo metadata --no-deps` that says who imports whom.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal one, else `dev` or `build`.
    kind: Option<String>,
    optional: bool,
    /// Present on a package of this workspace.
    path: Option<String>,
}

fn violations(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| layer == name) else {
            found.push(format!("package `{name}` has no place in LAYERS"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some()) {
            let target = dependency.name.as_str();
            // Any test may look at the real models; what ships may not.
            let test_data = target == MODELS && dependency.kind.as_deref() == Some("dev");
            if !allowed.contains(&target) && !test_data {
                found.push(format!("`{name}` imports `{target}`; it may import {allowed:?}"));
            } else if target == MODELS && !test_data && !behind_bundled(package, dependency) {
                found
                    .push(format!("`{name}` imports `{target}` other than by the feature `{BUNDLED}` alone"));
            }
        }
    }
    found
}

fn behind_bundled(package: &Package, models: &Dependency) -> bool {
    let switches =
        |values: &[String]| values.iter().any(|v| v.trim_start_matches("dep:").starts_with(MODELS));
    let features: Vec<&str> =
        package.features.iter().filter(|(_, v)| switches(v)).map(|(f, _)| f.as_str()).collect();
    models.optional && features == [BUNDLED]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, imports: &[&str]) -> Package {
        let dependencies = imports.iter().map(|name| dependency(name, None, *name == MODELS)).collect();
        let bundled = (BUNDLED.to_owned(), vec![format!("dep:{MODELS}")]);
        let features = if imports.contains(&MODELS) { BTreeMap::from([bundled]) } else { BTreeMap::new() };
        Package { name: name.to_owned(), dependencies, features }
    }

    fn dependency(name: &str, kind: Option<&str>, optional: bool) -> Dependency {
        let path = Some(format!("/{name}"));
        Dependency { name: name.to_owned(), kind: kind.map(str::to_owned), optional, path }
    }

    #[test]
    fn this_workspace_follows_the_arrows() {
        check(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).unwrap();
    }

    #[test]
    fn imports_along_the_arrows_are_accepted() {
        let core = package(CORE, &["antiphon-inference", "antiphon-kernels", MODELS]);
        assert_eq!(violations(&[core, package("antiphon-cli", &[CORE])]), [""; 0]);
    }

    #[test]
    fn an_import_against_the_arrows_is_named() {
        let found = violations(&[package("antiphon-kernels", &["antiphon-inference"])]);
        assert_eq!(found, ["`antiphon-kernels` imports `antiphon-inference`; it may import []"]);
    }

    #[test]
    fn a_face_may_not_reach_past_the_core() {
        assert_eq!(violations(&[package("antiphon-cli", &[CORE, "antiphon-kernels"])]).len(), 1);
        assert_eq!(violations(&[package("antiphon-cli", &[MODELS])]).len(), 1);
    }

    #[test]
    fn a_package_without_a_place_is_named() {
        assert_eq!(
            violations(&[package("antiphon-extra", &[])]),
            ["package `antiphon-extra` has no place in LAYERS"]
        );
    }

    #[test]
    fn models_come_only_by_the_bundled_feature() {
        let mut always = package(CORE, &[MODELS]);
        always.dependencies[0].optional = false;
        let mut twice = package(CORE, &[MODELS]);
        twice.features.insert("extra".to_owned(), vec![MODELS.to_owned()]);
        for core in [always, twice] {
            assert_eq!(violations(&[core]).len(), 1);
        }
    }

    #[test]
    fn tests_of_any_crate_may_read_the_models() {
        let mut inference = package("antiphon-inference", &["antiphon-kernels"]);
        inference.dependencies.push(dependency(MODELS, Some("dev"), false));
        assert_eq!(violations(&[inference]), [""; 0]);
    }
}
