//! What `SERVING_READINESS_PROBE` may hold (SPEC E1).

#![allow(clippy::panic, reason = "a test fails by panicking")]

use super::environment;
use super::probe::VARIABLE;
use super::tests::{run_in, usage_in};
use crate::config::{Check, ContainerProbe, Probe};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

const MANY: (&str, &str) = (environment::MULTI_CONTAINER_PROBES, "true");

fn read(json: &str) -> (ContainerProbe, Vec<String>) {
    let (config, warnings) = run_in(&[], &[(VARIABLE, json)]);
    (config.probe, warnings)
}

fn single(json: &str) -> Probe {
    match read(json) {
        (ContainerProbe::All(mut probes), warnings) if warnings.is_empty() => probes.remove(0),
        other => panic!("{json}: {other:?}"),
    }
}

fn refused(json: &str, part: &str) {
    let (errors, exit_code) = usage_in(&[], &[(VARIABLE, json)]);
    assert_eq!((errors.len(), exit_code), (1, 1), "{json}: {errors:?}");
    assert!(errors[0].starts_with("SERVING_READINESS_PROBE: "), "{errors:?}");
    assert!(errors[0].contains(part), "{json}: {errors:?}");
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

#[test]
fn without_a_probe_the_container_is_always_ready() {
    for json in ["", " \n"] {
        assert_eq!(read(json), (ContainerProbe::AlwaysReady, vec![]));
    }
}

#[test]
fn an_http_probe_is_read_in_full() {
    let probe = single(
        r#"{"httpGet":{"host":"h","port":8081,"path":"/v1?a=b","scheme":"HTTPS",
            "httpHeaders":[{"name":"X-A","value":"1"},{"name":"X-A","value":""}]},
            "timeoutSeconds":3,"periodSeconds":5,"successThreshold":2,
            "failureThreshold":4,"initialDelaySeconds":9,"terminationGracePeriodSeconds":1}"#,
    );
    let check = Check::Http {
        tls: true,
        host: "h".into(),
        port: port(8081),
        path: "/v1?a=b".into(),
        headers: vec![("X-A".into(), "1".into()), ("X-A".into(), String::new())],
    };
    let success_threshold = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN);
    let timeout = Duration::from_secs(3);
    assert_eq!(probe, Probe { check, timeout, aggressive: false, success_threshold });
}

#[test]
fn what_is_left_out_is_as_kubernetes_fills_it_in() {
    for json in [
        r#"{"httpGet":{}}"#,
        r#"{"httpGet":{"host":"","port":0,"path":"","scheme":"","httpHeaders":null},
            "tcpSocket":null,"timeoutSeconds":0,"periodSeconds":0,"successThreshold":null}"#,
    ] {
        let check =
            Check::Http { tls: false, host: "127.0.0.1".into(), port: port(8080), path: "/".into(), headers: vec![] };
        let timeout = Duration::from_secs(1);
        let success_threshold = NonZeroU32::MIN;
        assert_eq!(single(json), Probe { check, timeout, aggressive: true, success_threshold });
    }
}

#[test]
fn port_0_is_the_component_port() {
    let env = [(VARIABLE, r#"{"tcpSocket":{"port":0,"host":"127.0.0.1"},"successThreshold":1}"#)];
    let probe = run_in(&["--component-port=7"], &env).0.probe;
    let ContainerProbe::All(probes) = probe else { panic!("{probe:?}") };
    assert_eq!(probes[0].check, Check::Tcp { host: "127.0.0.1".into(), port: port(7) });
}

#[test]
fn a_port_may_be_a_number_in_a_string() {
    let check = single(r#"{"tcpSocket":{"port":"9000"}}"#).check;
    assert_eq!(check, Check::Tcp { host: "127.0.0.1".into(), port: port(9000) });
}

#[test]
fn a_grpc_probe_may_name_a_service() {
    let check = single(r#"{"grpc":{"port":8033,"service":"s"}}"#).check;
    assert_eq!(check, Check::Grpc { port: port(8033), service: "s".into() });
    let check = single(r#"{"grpc":{"port":8033,"service":null}}"#).check;
    assert_eq!(check, Check::Grpc { port: port(8033), service: String::new() });
}

#[test]
fn a_path_gets_its_leading_slash() {
    let Check::Http { path, .. } = single(r#"{"httpGet":{"path":"ready"}}"#).check else { panic!("not http") };
    assert_eq!(path, "/ready");
}

#[test]
fn exec_is_a_warning_and_counts_as_ready() {
    let (probe, warnings) = read(r#"{"exec":{"command":["true"]}}"#);
    assert_eq!(probe, ContainerProbe::AlwaysReady);
    assert!(warnings.len() == 1 && warnings[0].contains("exec"), "{warnings:?}");
}

#[test]
fn a_port_by_name_is_a_warning_and_the_component_port() {
    for json in
        [r#"{"httpGet":{"port":"http1"}}"#, r#"{"tcpSocket":{"port":"h2c"}}"#, r#"{"grpc":{"port":"8033-grpc"}}"#]
    {
        let (config, warnings) = run_in(&["--component-port=7"], &[(VARIABLE, json)]);
        let ContainerProbe::All(probes) = config.probe else { panic!("{:?}", config.probe) };
        let (Check::Http { port: found, .. } | Check::Tcp { port: found, .. } | Check::Grpc { port: found, .. }) =
            probes[0].check;
        assert_eq!(found, port(7), "{json}");
        assert!(warnings.len() == 1 && warnings[0].contains("--component-port, 7"), "{warnings:?}");
    }
}

#[test]
fn null_is_a_warning_and_counts_as_ready() {
    let (probe, warnings) = read("null");
    assert_eq!((probe, warnings.len()), (ContainerProbe::AlwaysReady, 1));
    let (config, warnings) = run_in(&[], &[(VARIABLE, r#"[null,{"grpc":{"port":2}}]"#), MANY]);
    assert!(matches!(config.probe, ContainerProbe::All(probes) if probes.len() == 1));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn an_array_holds_the_probes_of_many_containers() {
    let json = r#"[{"exec":{}},{"tcpSocket":{"port":1}},{"grpc":{"port":2}}]"#;
    let (config, warnings) = run_in(&[], &[(VARIABLE, json), MANY]);
    let ContainerProbe::All(probes) = config.probe else { panic!("{:?}", config.probe) };
    assert_eq!((probes.len(), warnings.len()), (2, 1));
    let (config, _) = run_in(&[], &[(VARIABLE, r#"{"grpc":{"port":2}}"#), MANY]);
    assert!(matches!(config.probe, ContainerProbe::All(probes) if probes.len() == 1));
    let (config, _) = run_in(&[], &[(VARIABLE, "[]"), MANY]);
    assert_eq!(config.probe, ContainerProbe::AlwaysReady);
    refused(json, "ENABLE_MULTI_CONTAINER_PROBES=true");
}

#[test]
fn json_that_is_no_probe_exits_1_with_the_reason() {
    for (json, part) in [
        ("{", "EOF"),
        ("7", "invalid type"),
        ("{}", "httpGet, tcpSocket, grpc or exec"),
        (r#"{"httpGet":{}} x"#, "trailing characters"),
        (r#"{"tcpSocket":{"port":""}}"#, "a port number"),
        (r#"{"tcpSocket":{"port":"a b"}}"#, "a port number"),
        (r#"{"tcpSocket":{"port":"-1"}}"#, "a port number"),
        (r#"{"tcpSocket":{"port":"70000"}}"#, "a port number"),
        (r#"{"grpc":{"port":65536}}"#, "a port number"),
        (r#"{"grpc":{"port":-1}}"#, "a port number"),
        (r#"{"httpGet":{"scheme":"FTP"}}"#, "HTTP or HTTPS"),
        (r#"{"httpGet":{},"timeoutSeconds":-1}"#, "timeoutSeconds"),
        (r#"{"httpGet":{},"successThreshold":-1}"#, "successThreshold"),
    ] {
        refused(json, part);
    }
}

#[test]
fn text_that_could_split_the_probes_request_is_refused() {
    for (json, part) in [
        (r#"{"httpGet":{"path":"/a\r\nX: y"}}"#, "a path"),
        (r#"{"httpGet":{"path":"/a b"}}"#, "a path"),
        (r#"{"httpGet":{"host":"a\r\nb"}}"#, "a host name"),
        (r#"{"tcpSocket":{"host":"a/b"}}"#, "a host name"),
        (r#"{"httpGet":{"httpHeaders":[{"name":"A:","value":"1"}]}}"#, "a header name"),
        (r#"{"httpGet":{"httpHeaders":[{"name":"","value":"1"}]}}"#, "a header name"),
        (r#"{"httpGet":{"httpHeaders":[{"name":"A","value":"1\n2"}]}}"#, "control"),
        (r#"{"httpGet":{"httpHeaders":[{"name":"A","value":"1\u00002"}]}}"#, "control"),
    ] {
        refused(json, part);
    }
}

#[test]
fn a_secret_in_a_header_is_not_repeated() {
    let json = r#"{"httpGet":{"httpHeaders":[{"name":"A","value":"hush\n"}]}}"#;
    let (errors, _) = usage_in(&[], &[(VARIABLE, json)]);
    assert!(!errors[0].contains("hush"), "{errors:?}");
}
