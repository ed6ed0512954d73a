//! Finding a system, and the errors of wrong usage and of an unreachable system.

use std::net::TcpListener;

use orders_local::options;

use crate::fixture::{Fixture, said, template, tool};

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_not_there_is_one_clear_line_and_status_2() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{port}");
    let said = said(tool(&["--endpoint-url", &url, "history", "stock-TEA-01"])).await;
    assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(
        said.err.contains(&url) && said.err.contains("refused"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_found_by_itself_and_another_is_not_there() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let found = system
        .run(&["history", "stock-TEA-01", "--stack", "cairn"])
        .await;
    assert_eq!(found.status, 0, "{found:?}");
    let unknown = system
        .run(&["history", "stock-TEA-01", "--stack", "shop"])
        .await;
    assert_eq!(unknown.status, 2, "{unknown:?}");
    assert!(
        unknown
            .err
            .contains("stack shop not found; available: cairn"),
        "{unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_needs_the_registry_refuses_the_stack_of_another_application() {
    let mut template = template(&[("Authorization", "none"), ("Prices", "caller")]);
    for function in &mut template.functions {
        let application = function.settings.get_mut("APPLICATION").unwrap();
        assert_eq!(application, "orders");
        *application = "shop".to_owned();
    }
    let system = Fixture::with_template(&template, options()).await;
    system.receive("TEA-01", 3).await;
    for arguments in [
        &["audit"][..],
        &["doctor"],
        &["doctor", "--skip", "audit"],
        &["sagas"],
        &["lag"],
        &["state", "stock-TEA-01"],
        &["diff", "stock-TEA-01", "1", "1"],
        &["forget", "c-42", "--yes"],
    ] {
        let refused = system.run(arguments).await;
        assert_eq!(
            (refused.status, refused.out.as_str()),
            (2, ""),
            "{refused:?}"
        );
        for part in [
            "application shop",
            "tool of orders",
            "cargo run -p shop-cli",
        ] {
            assert!(refused.err.contains(part), "{refused:?}");
        }
    }
    let history = system.run(&["history", "stock-TEA-01"]).await;
    assert_eq!(history.status, 0, "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_a_command_has_its_own_options_apart_from_those_of_every_command() {
    let help = said(tool(&["audit", "--help"])).await.out;
    let (own, global) = help.split_once("\nGlobal options:\n").unwrap();
    for (option, is_global) in [
        ("--settle", false),
        ("--projection", false),
        ("--stack", true),
        ("--json", true),
    ] {
        let option = format!("      {option}");
        assert_eq!(global.contains(&option), is_global, "{option}: {help}");
        assert_eq!(own.contains(&option), !is_global, "{option}: {help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_help_with_examples_and_every_shell_its_completions() {
    let help = said(tool(&["help"])).await;
    assert_eq!(help.status, 0);
    let commands = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"history"), "{commands:?}");
    for command in &commands {
        let help = said(tool(&[command, "--help"])).await;
        assert_eq!(help.status, 0);
        assert!(
            help.out.contains("Examples:\n  cairn "),
            "{command}: {}",
            help.out
        );
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = said(tool(&["completions", shell])).await;
        assert_eq!(script.status, 0);
        for command in &commands {
            assert!(script.out.contains(command), "{shell} {command}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_with_status_2() {
    for arguments in [&["histroy"][..], &["history"], &["history", "Order 1"], &[]] {
        let said = said(tool(arguments)).await;
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
    }
}
