//! What the crates' manifests promise: arrows that point down, and backends that the user picks.

use toml::Table;

/// The crates of the workspace and which of them each may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("align-model", &[]),
    ("align-reward", &["align-model"]),
    ("align-dpo", &["align-model"]),
    ("align-rl", &["align-model", "align-reward"]),
    ("align-constitution", &["align-model", "align-reward"]),
    ("align-eval", &["align-model", "align-reward"]),
];

/// Packages that sit on top and may use every library.
const TOPS: [&str; 2] = ["align-kit", "align-cli"];

/// Features that every package forwards.
const BACKENDS: [&str; 7] = ["flex", "vulkan", "metal", "wgpu", "cuda", "rocm", "fusion"];

/// A package's `Cargo.toml`.
pub(crate) struct Manifest {
    path: String,
    table: Table,
}

impl Manifest {
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let table = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        Self { path: path.into(), table }
    }

    fn name(&self) -> &str {
        self.table["package"]["name"].as_str().unwrap()
    }

    /// Names and requirements of what the package depends on, for tests and builds too.
    fn dependencies(&self) -> Vec<(&str, &str, &toml::Value)> {
        let per_target =
            self.table.get("target").and_then(|t| t.as_table()).into_iter().flat_map(Table::values);
        let tables = std::iter::once(&self.table).chain(per_target.filter_map(|t| t.as_table()));
        let mut found = Vec::new();
        for table in tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let entries = table.get(kind).and_then(|d| d.as_table()).into_iter().flatten();
                found.extend(entries.map(|(name, requirement)| (kind, name.as_str(), requirement)));
            }
        }
        found
    }
}

/// Dependencies on a crate beside or above.
pub(crate) fn forbidden_arrows(manifest: &Manifest) -> Vec<String> {
    let (path, name) = (&manifest.path, manifest.name());
    if TOPS.contains(&name) {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(package, _)| *package == name) else {
        return vec![format!("{path}: `{name}` has no place among the crates: add it to ARROWS")];
    };
    let may_use = |kind, to| allowed.contains(&to) || (kind == "dev-dependencies" && to == name);
    let ours = manifest.dependencies().into_iter().filter(|(_, to, _)| to.starts_with("align-"));
    let wrong = ours.filter(|&(kind, to, _)| !may_use(kind, to));
    wrong.map(|(kind, to, _)| format!("{path}: [{kind}]: `{name}` must not depend on `{to}`")).collect()
}

/// Backends that are not forwarded, and libraries that pick one for their users.
pub(crate) fn backend_features(manifest: &Manifest) -> Vec<String> {
    let path = &manifest.path;
    let dependencies: Vec<_> =
        manifest.dependencies().into_iter().filter(|(kind, ..)| *kind == "dependencies").collect();
    let ours = dependencies.iter().map(|(_, name, _)| *name).filter(|name| name.starts_with("align-"));
    let below: Vec<&str> = if manifest.name() == "align-model" { vec!["burn"] } else { ours.collect() };
    let mut found = Vec::new();
    for backend in BACKENDS {
        let enabled = feature(manifest, backend);
        let missing = below
            .iter()
            .map(|to| format!("{to}/{backend}"))
            .filter(|forward| !enabled.contains(&forward.as_str()));
        found.extend(missing.map(|forward| format!("{path}: feature `{backend}` must enable `{forward}`")));
    }
    if TOPS.contains(&manifest.name()) {
        return found;
    }
    for backend in feature(manifest, "default").into_iter().filter(|f| is_backend(f)) {
        found.push(format!("{path}: `{backend}` is on by default: the user picks the backend"));
    }
    for (_, to, requirement) in &dependencies {
        let enabled = requirement.get("features").and_then(|f| f.as_array()).into_iter().flatten();
        for backend in enabled.filter_map(|f| f.as_str()).filter(|f| below.contains(to) && is_backend(f)) {
            found.push(format!("{path}: dependency `{to}` enables `{backend}`: the user picks the backend"));
        }
    }
    found
}

fn feature<'a>(manifest: &'a Manifest, name: &str) -> Vec<&'a str> {
    let list = manifest.table.get("features").and_then(|f| f.get(name)).and_then(|f| f.as_array());
    list.into_iter().flatten().filter_map(|f| f.as_str()).collect()
}

/// `flex`, and also `burn/flex` and `align-model/flex`.
fn is_backend(feature: &str) -> bool {
    let name = feature.rsplit('/').next().unwrap_or(feature);
    BACKENDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> Manifest {
        Manifest::parse("Cargo.toml", &format!("[package]\nname = \"{name}\"\n{rest}"))
    }

    fn features(to: &str) -> String {
        let lines = BACKENDS.iter().map(|b| format!("{b} = [\"{to}/{b}\"]\n"));
        format!("[features]\n{}", lines.collect::<String>())
    }

    #[test]
    fn sideways_arrows_are_found() {
        let rest = "[dependencies]\nalign-model = \"1\"\n[dev-dependencies]\nalign-dpo = \"1\"\nalign-rl.workspace = true\n";
        assert_eq!(
            forbidden_arrows(&manifest("align-dpo", rest)),
            ["Cargo.toml: [dev-dependencies]: `align-dpo` must not depend on `align-rl`"]
        );
        assert_eq!(forbidden_arrows(&manifest("align-model", rest)).len(), 3);
        assert_eq!(forbidden_arrows(&manifest("align-kit", rest)).len(), 0);
        assert_eq!(forbidden_arrows(&manifest("align-extra", "")).len(), 1);
    }

    #[test]
    fn arrows_of_one_platform_count() {
        let rest = "[target.'cfg(unix)'.dependencies]\nalign-eval = \"1\"\n";
        assert_eq!(forbidden_arrows(&manifest("align-rl", rest)).len(), 1);
    }

    #[test]
    fn backends_must_be_forwarded() {
        let dependencies = "[dependencies]\nalign-model = \"1\"\n";
        assert_eq!(backend_features(&manifest("align-dpo", dependencies)).len(), BACKENDS.len());
        let complete = format!("{}{dependencies}", features("align-model"));
        assert_eq!(backend_features(&manifest("align-dpo", &complete)), Vec::<String>::new());
    }

    #[test]
    fn a_library_picks_no_backend() {
        let by_default = format!("{}default = [\"flex\"]\n[dependencies]\nburn = \"1\"\n", features("burn"));
        assert_eq!(backend_features(&manifest("align-model", &by_default)).len(), 1);
        let by_dependency = format!(
            "{}[dependencies]\nburn = {{ version = \"1\", features = [\"std\", \"cuda\"] }}\n",
            features("burn")
        );
        assert_eq!(
            backend_features(&manifest("align-model", &by_dependency)),
            ["Cargo.toml: dependency `burn` enables `cuda`: the user picks the backend"]
        );
    }

    #[test]
    fn the_command_may_pick_one() {
        let rest =
            format!("{}default = [\"flex\"]\n[dependencies]\nalign-model = \"1\"\n", features("align-model"));
        assert_eq!(backend_features(&manifest("align-cli", &rest)), Vec::<String>::new());
    }
}
