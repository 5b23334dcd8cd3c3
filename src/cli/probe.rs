//! `SERVING_READINESS_PROBE`: Kubernetes' probe JSON to [`ContainerProbe`] (SPEC E1).
//!
//! Kubernetes' `corev1.Probe`: absent, `null` and 0 mean the same, members that are not known are passed over. What
//! the kubelet alone needs (`initialDelaySeconds`, `failureThreshold`) is among those.

use super::report::{Report, not_allowed, quoted};
use super::{environment, value};
use crate::config::{Check, ContainerProbe, Probe};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

/// Holds the probe, or the probes.
pub(super) const VARIABLE: &str = "SERVING_READINESS_PROBE";

/// The probe, or `None` once an error was reported. Port 0 is Knative's word for the container's own port.
pub(super) fn container_probe(
    env: &dyn Fn(&str) -> Option<String>,
    component_port: Option<NonZeroU16>,
    report: &mut Report,
) -> Option<ContainerProbe> {
    let Some(json) = env(VARIABLE).filter(|json| !json.trim().is_empty()) else {
        return Some(ContainerProbe::AlwaysReady);
    };
    let many = env(environment::MULTI_CONTAINER_PROBES).is_some_and(|text| value::boolean(&text) == Some(true));
    let parsed = match decode(&json, many) {
        Ok(parsed) => parsed,
        Err(reason) => {
            // Not the whole value: a probe's headers may hold a secret, and this line goes to a log.
            report.runtime_error(format!("{VARIABLE}: {reason}"));
            return None;
        }
    };
    // Without a component port there is an error already, and nothing is probed.
    let component_port = component_port.unwrap_or(NonZeroU16::MIN);
    let probes: Vec<_> = parsed
        .into_iter()
        .map(|probe| match probe {
            Some(probe) => checked(probe, component_port, report),
            None => {
                report.warn(format!("{VARIABLE}: null counts as ready"));
                Some(vec![])
            }
        })
        .collect();
    let probes: Vec<Probe> = probes.into_iter().collect::<Option<Vec<_>>>()?.concat();
    if probes.is_empty() {
        return Some(ContainerProbe::AlwaysReady);
    }
    Some(ContainerProbe::All(probes))
}

/// The probes; `None` stands for `null`, which KServe passes on for a container without one.
fn decode(json: &str, many: bool) -> Result<Vec<Option<ProbeJson>>, String> {
    let malformed = |error: serde_json::Error| format!("is not allowed: a Kubernetes probe in JSON: {error}");
    if !json.trim_start().starts_with('[') {
        return serde_json::from_str(json).map(|probe| vec![probe]).map_err(malformed);
    }
    if many {
        return serde_json::from_str(json).map_err(malformed);
    }
    let switch = environment::MULTI_CONTAINER_PROBES;
    Err(format!("is not allowed: one probe, an array of them only with {switch}=true"))
}

/// No probe for `exec`, one for any other handler, `None` once an error was reported.
fn checked(json: ProbeJson, component_port: NonZeroU16, report: &mut Report) -> Option<Vec<Probe>> {
    let mut own_port = |port: Option<PortJson>| port_number(port, component_port, report);
    // In the order in which Knative looks for them; Kubernetes lets no two through.
    let check = if let Some(http) = json.http_get {
        own_port(http.port.clone()).and_then(|port| http_check(http, port))
    } else if let Some(tcp) = json.tcp_socket {
        let host = host(tcp.host);
        own_port(tcp.port).and_then(|port| Ok(Check::Tcp { host: host?, port }))
    } else if let Some(grpc) = json.grpc {
        let service = grpc.service.unwrap_or_default();
        own_port(grpc.port).map(|port| Check::Grpc { port, service })
    } else if json.exec.is_some() {
        report.warn(format!("{VARIABLE}: exec can't be run from here and counts as ready"));
        return Some(vec![]);
    } else {
        Err("is not allowed: a probe with httpGet, tcpSocket, grpc or exec".to_owned())
    };
    let timeout = at_least_1("timeoutSeconds", json.timeout_seconds);
    let successes = at_least_1("successThreshold", json.success_threshold);
    let mut taken = |error: String| report.runtime_error(format!("{VARIABLE}: {error}"));
    let check = check.map_err(&mut taken).ok();
    let timeout = timeout.map_err(&mut taken).ok();
    let successes = successes.map_err(&mut taken).ok();
    Some(vec![Probe {
        check: check?,
        timeout: Duration::from_secs(u64::from(timeout?.get())),
        aggressive: json.period_seconds.unwrap_or(0) == 0,
        success_threshold: successes?,
    }])
}

fn http_check(http: HttpJson, port: NonZeroU16) -> Result<Check, String> {
    let scheme = http.scheme.unwrap_or_default();
    let tls = match scheme.to_ascii_uppercase().as_str() {
        "" | "HTTP" => false,
        "HTTPS" => true,
        _ => return Err(not_allowed("httpGet.scheme", &scheme, "HTTP or HTTPS")),
    };
    let headers = http.http_headers.unwrap_or_default().into_iter().map(header);
    Ok(Check::Http {
        tls,
        host: host(http.host)?,
        port,
        path: path(http.path)?,
        headers: headers.collect::<Result<_, _>>()?,
    })
}

/// The model server is in this pod, so that is where an empty host is.
fn host(text: Option<String>) -> Result<String, String> {
    let text = text.unwrap_or_default();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(&byte);
    match text.as_str() {
        "" => Ok("127.0.0.1".to_owned()),
        _ if text.bytes().all(letter) => Ok(text),
        _ => Err(not_allowed("host", &text, "a host name or an address")),
    }
}

/// Goes into a request line as it is, so it must not end that.
fn path(text: Option<String>) -> Result<String, String> {
    let text = text.unwrap_or_default();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_allowed("httpGet.path", &text, "a path without spaces, percent-encoded"));
    }
    Ok(if text.starts_with('/') { text } else { format!("/{text}") })
}

/// A header that can't split the request that it is put into (RFC 9110 §5.5). The value is not repeated in the error.
fn header(header: HeaderJson) -> Result<(String, String), String> {
    if !value::is_token(&header.name) {
        return Err(not_allowed("httpHeaders.name", &header.name, "a header name"));
    }
    let value = header.value.unwrap_or_default();
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        let name = quoted(&header.name);
        return Err(format!("the value of header {name} is not allowed: no control characters"));
    }
    Ok((header.name, value))
}

/// The number, or the component's port for 0 and for a name: it could only be looked up in the pod's specification, and the
/// component is what is probed.
fn port_number(port: Option<PortJson>, component_port: NonZeroU16, report: &mut Report) -> Result<NonZeroU16, String> {
    const ALLOWED: &str = "a port number from 1 to 65535, 0 for the --component-port, or a port's name";
    let (number, text) = match port {
        None => (Some(0), String::new()),
        Some(PortJson::Number(number)) => (Some(number), number.to_string()),
        Some(PortJson::Text(text)) if is_port_name(&text) => {
            let name = quoted(&text);
            report.warn(format!("{VARIABLE}: port {name} is taken for the --component-port, {component_port}"));
            return Ok(component_port);
        }
        Some(PortJson::Text(text)) => (value::integer(&text), text),
    };
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(number) => Ok(NonZeroU16::new(number).unwrap_or(component_port)),
        None => Err(not_allowed("port", &text, ALLOWED)),
    }
}

/// A name as Kubernetes takes it (RFC 6335 §5.1): letters, digits and hyphens with a letter among them. Case is let be.
fn is_port_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Kubernetes fills in 1 for 0.
fn at_least_1(name: &str, number: Option<i32>) -> Result<NonZeroU32, String> {
    let number = number.unwrap_or(0);
    let unsigned = u32::try_from(number);
    unsigned
        .map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
        .map_err(|_| not_allowed(name, &number.to_string(), "a number from 1"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProbeJson {
    http_get: Option<HttpJson>,
    tcp_socket: Option<TcpJson>,
    grpc: Option<GrpcJson>,
    exec: Option<IgnoredAny>,
    timeout_seconds: Option<i32>,
    period_seconds: Option<i32>,
    success_threshold: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpJson {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<PortJson>,
    path: Option<String>,
    http_headers: Option<Vec<HeaderJson>>,
}

#[derive(Deserialize)]
struct HeaderJson {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
struct TcpJson {
    host: Option<String>,
    port: Option<PortJson>,
}

#[derive(Deserialize)]
struct GrpcJson {
    port: Option<PortJson>,
    service: Option<String>,
}

/// Kubernetes' `IntOrString`.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum PortJson {
    Number(i64),
    Text(String),
}
