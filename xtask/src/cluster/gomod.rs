//! The main modules with which the programs are built: text in, text out.

/// A main module with the requirements of `module`, for programs that lie inside of it.
///
/// `go build module/cmd/x` by itself ignores what that module replaces. `k8s.io/kubernetes` replaces its staging
/// modules by directories of its own repository; they are published too, as `v0.MINOR.PATCH`.
pub fn borrow(go_mod: &str, module: &str, version: &str) -> String {
    let mut text = String::new();
    let mut staging = Vec::new();
    let mut in_replace = false;
    for line in go_mod.lines() {
        let is_staging = line.trim().split_once(" => ./staging/");
        staging.extend(is_staging.map(|(path, _)| path.to_owned()));
        if line.starts_with("replace (") {
            in_replace = true;
        }
        let dropped = in_replace || line.starts_with("//") || line.starts_with("replace ");
        if line == ")" {
            in_replace = false;
        }
        if line.starts_with("module ") {
            text.push_str("module sluice.dev/cluster\n");
        } else if !dropped {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(&format!("\nrequire {module} v{version}\n"));
    let staged = version.split_once('.').map_or(version, |(_, rest)| rest);
    for path in staging {
        text.push_str(&format!("replace {path} => {path} v0.{staged}\n"));
    }
    text
}

/// A main module that requires `modules` and replaces nothing but what a module replaces by a sibling directory.
pub fn requiring(modules: &[(&str, &str)], replaced: Option<(&str, &str)>) -> String {
    let mut text = "module sluice.dev/cluster\n\ngo 1.26.0\n\n".to_owned();
    for (module, version) in modules {
        text.push_str(&format!("require {module} v{version}\n"));
    }
    if let Some((module, version)) = replaced {
        text.push_str(&format!("replace {module} => {module} v{version}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::borrow;

    #[test]
    fn staging_modules_are_taken_at_the_version_they_are_published_as() {
        let go_mod = "// generated\nmodule k8s.io/kubernetes\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/api v0.0.0\n)\n\n\
                      replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let text = borrow(go_mod, "k8s.io/kubernetes", "1.36.3");
        let wanted = "module sluice.dev/cluster\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/api v0.0.0\n)\n\n\n\
                      require k8s.io/kubernetes v1.36.3\nreplace k8s.io/api => k8s.io/api v0.36.3\n";
        assert_eq!(text, wanted);
    }
}
