//! `cairn local` with a template of another project.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use crate::fixture::{said, tool};

/// Writes a template with a function of a runtime, and returns the folder.
fn project(runtime: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    let template = format!(
        "Resources:\n  AppFunction:\n    Type: AWS::Serverless::Function\n    Properties: {{ \
         CodeUri: app, Runtime: {runtime}, Handler: app.handler }}\n"
    );
    fs::write(folder.path().join("template.yaml"), template).unwrap();
    folder
}

/// Writes a program that fails as Python does without a module.
fn python(folder: &Path) {
    let file = folder.join("python3");
    let script =
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'awslambdaric'\" >&2\nexit 1\n";
    fs::write(&file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_runtime_interface_client_is_an_error_at_the_start_with_its_installation() {
    for (runtime, problem, fix) in [
        (
            "python3.13",
            "python3 cannot import awslambdaric",
            "install the client with `python3 -m pip install awslambdaric`",
        ),
        (
            "nodejs22.x",
            "node_modules/.bin/aws-lambda-ric does not exist",
            "install the client with `npm install aws-lambda-ric`",
        ),
    ] {
        let folder = project(runtime);
        python(folder.path());
        let mut command = tool(&["local", "--port", "0", "--aws-port", "0"]);
        command
            .current_dir(folder.path())
            .env("PATH", folder.path());
        let refused = said(command).await;
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.err.contains("line 3: AppFunction: "), "{refused:?}");
        assert!(refused.err.contains(problem), "{refused:?}");
        assert!(refused.err.contains(fix), "{refused:?}");
    }
}
