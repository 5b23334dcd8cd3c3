//! The peers, each with one worker thread, in front of one server.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::model::{AGENT, BASELINE, DIRECT, HAPROXY, HAPROXY_TCP, NGINX};
use crate::options::Options;
use crate::peer::{Recipe, fill_in, find, free_port};

/// What all recipes of one set-up share.
pub(crate) struct Kitchen<'o> {
    pub(crate) options: &'o Options,
    pub(crate) folder: PathBuf,
    /// Connections that nginx and haproxy are to take; both reserve memory for them.
    pub(crate) connections: usize,
}

impl Kitchen<'_> {
    /// The fast server: nginx, which answers without reading a model; where it is missing the example server, which has
    /// no files and takes no uploads.
    pub(crate) fn server(&self) -> Result<Recipe, Failure> {
        match find("nginx") {
            Some(nginx) => {
                let port = free_port()?;
                self.nginx(DIRECT, &nginx, "server.conf", port, &[("server", port.to_string())])
            }
            None => self.model_server(DIRECT, &[]),
        }
    }

    pub(crate) fn model_server(&self, name: &str, flags: &[&str]) -> Result<Recipe, Failure> {
        let port = free_port()?;
        let mut words = vec![text(&self.options.model_server), format!("--port={port}")];
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Ok(Recipe { name: name.to_owned(), port, words, fault: false })
    }

    pub(crate) fn agent(&self, name: &str, server: u16, flags: &[&str]) -> Result<Recipe, Failure> {
        self.program(&self.options.agent, name, server, flags)
    }

    /// The agent that was built to be slowed, and whether it is.
    pub(crate) fn faulty(&self, name: &str, server: u16, is_slowed: bool) -> Result<Recipe, Failure> {
        let recipe = self.program(&self.options.faulty_agent, name, server, &["--threads=1"])?;
        Ok(Recipe { fault: is_slowed, ..recipe })
    }

    fn program(&self, program: &Path, name: &str, server: u16, flags: &[&str]) -> Result<Recipe, Failure> {
        let port = free_port()?;
        let mut words = vec![text(program), format!("--port={port}"), format!("--component-port={server}")];
        for flag in ["--metrics-port", "--admin-port"] {
            if !flags.iter().any(|given| given.starts_with(flag)) {
                words.push(format!("{flag}=0"));
            }
        }
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Ok(Recipe { name: name.to_owned(), port, words, fault: false })
    }

    fn nginx(
        &self,
        name: &str,
        nginx: &Path,
        template: &str,
        port: u16,
        ports: &[(&str, String)],
    ) -> Result<Recipe, Failure> {
        let mut values = ports.to_vec();
        values.push(("folder", text(&self.folder)));
        values.push(("connections", self.connections.to_string()));
        let file = format!("{port}-{template}");
        let path = fill_in(&self.options.peers.join(template), &self.folder, &file, &values)?;
        let words =
            [text(nginx).as_str(), "-e", "/dev/null", "-p", &text(&self.folder), "-c", &path].map(str::to_owned);
        Ok(Recipe { name: name.to_owned(), port, words: words.into(), fault: false })
    }

    fn haproxy(&self, name: &str, haproxy: &Path, template: &str, server: u16) -> Result<Recipe, Failure> {
        let port = free_port()?;
        let values =
            [("port", port.to_string()), ("server", server.to_string()), ("connections", self.connections.to_string())];
        let path = fill_in(&self.options.peers.join(template), &self.folder, &format!("{port}-{template}"), &values)?;
        let words = [text(haproxy).as_str(), "-f", &path, "-q", "-db"].map(str::to_owned);
        Ok(Recipe { name: name.to_owned(), port, words: words.into(), fault: false })
    }

    /// All proxies that are there, and what is missing.
    pub(crate) fn proxies(&self, server: u16) -> Result<(Vec<Recipe>, Vec<String>), Failure> {
        let mut recipes = vec![self.agent(AGENT, server, &["--threads=1"])?];
        let mut missing = Vec::new();
        let port = free_port()?;
        let program = text(&self.options.baseline);
        let words = [&program, "--port", &port.to_string(), "--server", &server.to_string()].map(str::to_owned).into();
        recipes.push(Recipe { name: BASELINE.to_owned(), port, words, fault: false });
        match find("nginx") {
            Some(nginx) => {
                let port = free_port()?;
                let ports = [("nginx", port.to_string()), ("server", server.to_string())];
                recipes.push(self.nginx(NGINX, &nginx, "nginx.conf", port, &ports)?);
            }
            None => missing.push("nginx is not installed: not measured, and the example server answers".to_owned()),
        }
        match find("haproxy") {
            Some(haproxy) => {
                recipes.push(self.haproxy(HAPROXY, &haproxy, "haproxy.cfg", server)?);
                recipes.push(self.haproxy(HAPROXY_TCP, &haproxy, "haproxy-tcp.cfg", server)?);
            }
            None => missing.push("haproxy is not installed: not measured".to_owned()),
        }
        for peer in &self.options.peer {
            let port = free_port()?;
            recipes.push(custom(peer, port, server)?);
        }
        Ok((recipes, missing))
    }
}

/// `NAME=COMMAND`, in which `{port}` and `{server}` are filled in; the command's words are parted by spaces.
fn custom(peer: &str, port: u16, server: u16) -> Result<Recipe, Failure> {
    let wrong = || Failure::new(format!("--peer {peer}: NAME=COMMAND with {{port}} and {{server}}"));
    let (name, command) = peer.split_once('=').ok_or_else(wrong)?;
    if name.is_empty() || !command.contains("{port}") {
        return Err(wrong());
    }
    let command = command.replace("{port}", &port.to_string()).replace("{server}", &server.to_string());
    let words = command.split_whitespace().map(str::to_owned).collect();
    Ok(Recipe { name: name.to_owned(), port, words, fault: false })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_ones_own_gets_its_ports() {
        let recipe = custom("go=/bin/agent --port={port} --component-port={server}", 1, 2).ok();
        assert_eq!(
            recipe.map(|recipe| recipe.words.join(" ")).as_deref(),
            Some("/bin/agent --port=1 --component-port=2")
        );
        for wrong in ["go", "=x {port}", "go=agent"] {
            assert!(custom(wrong, 1, 2).is_err(), "{wrong}");
        }
    }
}
