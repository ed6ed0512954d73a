//! `cairn local` with a template of another project.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use crate::fixture::{Said, said, tool};

/// Writes a template with functions of a runtime, by their names and variables, and returns the folder.
fn project(runtime: &str, functions: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    let functions = functions.iter().map(|(name, variables)| {
        format!(
            "  {name}:\n    Type: AWS::Serverless::Function\n    Properties: {{ CodeUri: app, \
             Runtime: {runtime}, Handler: app.handler, Environment: {{ Variables: {{ {variables} }} \
             }} }}\n"
        )
    });
    let template = format!("Resources:\n{}", functions.collect::<Vec<_>>().concat());
    fs::write(folder.path().join("template.yaml"), template).unwrap();
    folder
}

/// Writes a `python3` that fails as Python does without a module, unless `PYTHONPATH` leads to it.
fn python(folder: &Path) {
    let script = "#!/bin/sh\n[ \"$PYTHONPATH\" = modules ] && exit 0\n\
                  echo \"ModuleNotFoundError: No module named 'awslambdaric'\" >&2\nexit 1\n";
    let file = folder.join("python3");
    fs::write(&file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts the local system with a search path for programs, and returns its refusal.
async fn refused(folder: &Path, search: &Path) -> Said {
    let mut command = tool(&["local", "--port", "0", "--aws-port", "0"]);
    let command_in = command.current_dir(folder).env("PATH", search);
    // A function does not inherit it.
    command_in.env("PYTHONPATH", "modules");
    let refused = said(command).await;
    assert_eq!(refused.status, 2, "{refused:?}");
    refused
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
        let folder = project(runtime, &[("AppFunction", "")]);
        python(folder.path());
        let refused = refused(folder.path(), folder.path()).await;
        assert!(refused.err.contains("line 3: AppFunction: "), "{refused:?}");
        assert!(refused.err.contains(problem), "{refused:?}");
        assert!(refused.err.contains(fix), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_searched_with_the_variables_of_its_function() {
    let functions = [
        ("OwnFunction", "PATH: ../bin, PYTHONPATH: modules"),
        ("OtherFunction", "PATH: ../bin"),
        ("LastFunction", "PYTHONPATH: modules"),
    ];
    for (count, missing) in [
        (2, "OtherFunction: python3 cannot import awslambdaric"),
        (3, "LastFunction: the program python3 does not exist"),
    ] {
        let functions = [&functions[..1], &functions[count - 1..count]].concat();
        let folder = project("python3.13", &functions);
        fs::create_dir(folder.path().join("bin")).unwrap();
        python(&folder.path().join("bin"));
        let refused = refused(folder.path(), folder.path()).await;
        assert!(refused.err.contains(missing), "{refused:?}");
    }
}
