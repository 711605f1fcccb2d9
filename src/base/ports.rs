//! Ports: whether one is free, and who holds it if not.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Name of its program.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Returns the address to listen on: `wanted` itself, or with a free port for port 0.
///
/// The port is free at this moment; nobody keeps it until the server has it.
///
/// # Errors
/// The port is taken, or this machine has no such address.
pub fn free(wanted: SocketAddr) -> io::Result<SocketAddr> {
    TcpListener::bind(wanted)?.local_addr()
}

/// Returns who listens on `address`, if it can be told: needs the rights to look into the process.
/// Blocking, a few milliseconds.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().filter_map(|line| listening_inode(line, address)));
    }
    if inodes.is_empty() {
        return None;
    }
    let wanted: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| target.to_str().is_some_and(|target| wanted.contains(target)))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

/// Returns the inode of a line of `/proc/net/tcp` that listens where `address` would clash.
fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let ip = parse_ip(ip)?;
    let clashes = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    if clashes { inode.parse().ok() } else { None }
}

/// The kernel prints addresses as 32-bit words in the machine's byte order.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(free(address).is_err());
        let holder = holder(address).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.to_string().contains("(pid "), "{holder}");
        drop(listener);
        assert_eq!(super::holder(address), None);
        assert_eq!(free(address).unwrap(), address);
    }

    #[test]
    fn a_listener_on_all_addresses_clashes_too_and_another_state_does_not() {
        let line = |local: &str, state: &str| {
            format!(
                "0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 42 1"
            )
        };
        let address = "127.0.0.1:9000".parse().unwrap();
        let cases = [
            ("0100007F:2328", "0A", Some(42)),
            ("00000000:2328", "0A", Some(42)),
            ("00000000000000000000000000000000:2328", "0A", Some(42)),
            ("0000000000000000FFFF00000100007F:2328", "0A", Some(42)),
            ("0100007F:2328", "01", None),
            ("0100007F:2329", "0A", None),
            ("0200007F:2328", "0A", None),
        ];
        for (local, state, expected) in cases {
            assert_eq!(listening_inode(&line(local, state), address), expected, "{local} {state}");
        }
    }

    #[test]
    fn port_zero_gives_a_free_one() {
        assert_ne!(free("127.0.0.1:0".parse().unwrap()).unwrap().port(), 0);
    }
}
