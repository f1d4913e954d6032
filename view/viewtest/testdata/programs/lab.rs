// SPDX-License-Identifier: Apache-2.0
// lab fetch URL | post URL FILE | udp HOST PORT TEXT | serve PORT FILE
// Rust's standard library alone: it has no HTTP and no SHA-256, so the sums are
// "LENGTH FNV1A64", as the peer's digest server has them.
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

fn sum(b: &[u8]) -> String {
	let h = b.iter().fold(0xcbf29ce484222325u64, |h, c| (h ^ *c as u64).wrapping_mul(0x100000001b3));
	format!("{} {:016x}\n", b.len(), h)
}

/// Reads a head, and says what the first line is and how long the body.
fn head(r: &mut impl BufRead) -> Result<(String, usize)> {
	let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
	r.read_line(&mut first)?;
	while r.read_line(&mut line)? > 2 {
		if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
			length = n.trim().parse().unwrap();
		}
		line.clear();
	}
	Ok((first, length))
}

fn ask(url: &str, method: &str, body: &[u8]) -> Result<Vec<u8>> {
	let rest = url.strip_prefix("http://").unwrap();
	let (host, path) = rest.split_at(rest.find('/').unwrap());
	let address = if host.contains(':') { host.to_string() } else { format!("{}:80", host) };
	let mut s = TcpStream::connect(address)?;
	s.set_read_timeout(Some(Duration::from_secs(20)))?;
	write!(s, "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", method, path, host, body.len())?;
	s.write_all(body)?;
	let mut r = BufReader::new(s);
	let (_, length) = head(&mut r)?;
	let mut out = vec![0; length];
	r.read_exact(&mut out)?;
	Ok(out)
}

fn answer(s: TcpStream, file: &str) -> Result<()> {
	let from = s.peer_addr()?.ip().to_string();
	let mut r = BufReader::new(s.try_clone()?);
	let (line, length) = head(&mut r)?;
	let mut body = vec![0; length];
	r.read_exact(&mut body)?;
	let out = if line.starts_with("POST") {
		sum(&body).into_bytes()
	} else if line.starts_with("GET /big ") {
		std::fs::read(file)?
	} else {
		format!("{}\n", from.trim_start_matches("::ffff:")).into_bytes()
	};
	let mut w = s;
	write!(w, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", out.len())?;
	w.write_all(&out)
}

fn main() -> Result<()> {
	let a: Vec<String> = std::env::args().collect();
	match a[1].as_str() {
		"fetch" => print!("{}", sum(&ask(&a[2], "GET", b"")?)),
		"post" => print!("{}", String::from_utf8(ask(&a[2], "POST", &std::fs::read(&a[3])?)?).unwrap()),
		"udp" => {
			let to = (a[2].as_str(), a[3].parse().unwrap()).to_socket_addrs()?.next().unwrap();
			let s = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
			s.set_read_timeout(Some(Duration::from_secs(5)))?;
			s.send_to(a[4].as_bytes(), to)?;
			let mut b = [0; 65536];
			let (n, _) = s.recv_from(&mut b)?;
			println!("{}", String::from_utf8_lossy(&b[..n]));
		}
		"serve" => {
			let at = format!("[::]:{}", a[2]);
			let u = UdpSocket::bind(&at)?;
			std::thread::spawn(move || loop {
				let mut b = [0; 65536];
				if let Ok((n, from)) = u.recv_from(&mut b) {
					u.send_to(b[..n].to_ascii_uppercase().as_slice(), from).ok();
				}
			});
			for s in TcpListener::bind(&at)?.incoming() {
				let file = a[3].clone();
				std::thread::spawn(move || answer(s?, &file));
			}
		}
		_ => std::process::exit(2),
	}
	Ok(())
}
